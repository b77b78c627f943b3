#pragma once

#include <string>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "peerchunk/base/file.h"

namespace peerchunk {

// A file under a temporary name (base/rename.h), removed when it goes away without having been
// moved to its place. Locked (flock) while it lives, so that others know it from what a dead
// process left behind. Move-only; used by one thread.
class TemporaryFile {
 public:
  // `folder` is borrowed and outlives it.
  static absl::StatusOr<TemporaryFile> Create(const File& folder);
  // Removes what processes that are gone left in `folder`, as far as it can be. Other names are
  // left alone.
  static void RemoveLeftovers(const File& folder);

  TemporaryFile(TemporaryFile&& other) noexcept
      : folder_(other.folder_),
        name_(std::exchange(other.name_, "")),
        file_(std::move(other.file_)) {}
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  ~TemporaryFile();

  const File& file() const { return file_; }

  // Renames it to `name` in `into`, in one step, over what is there: or, with `if_absent`, fails
  // with AlreadyExists and leaves it.
  absl::Status MoveTo(const File& into, const std::string& name, bool if_absent);

 private:
  TemporaryFile(const File& folder, std::string name, File file)
      : folder_(&folder), name_(std::move(name)), file_(std::move(file)) {}

  const File* folder_;
  std::string name_;  // Empty once moved.
  File file_;
};

}  // namespace peerchunk
