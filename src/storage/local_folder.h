#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "base/temporary_file.h"
#include "peerchunk/base/file.h"
#include "peerchunk/storage/storage.h"
#include "storage/local_sidecar.h"

namespace peerchunk {

// One version of an object, open for reading. The descriptor is the pin: its bytes stay what they
// are when the object is replaced or deleted. `stat.crc32c` and `stat.metadata` are empty for a
// file that someone put into the folder by hand.
struct LocalObject {
  File file;
  ObjectStat stat;

  // Aborted when someone wrote into the file itself since it was opened, which no provider does.
  absl::Status CheckUnchanged() const;
};

// The layout of a local provider's folder and the order of steps that keeps it consistent:
//   <object path>                                  the object's bytes, a plain file
//   .peerchunk/objects/<object path>/<version>     its sidecar; version = inode-mtime-size
//   .peerchunk/tmp/                                objects being written
//   .peerchunk/locks/                              taken with flock for each change of a path
// A sidecar is written before its object appears and names the very inode it describes.
// Thread-safe, also between processes.
class LocalFolder {
 public:
  static absl::StatusOr<std::unique_ptr<LocalFolder>> Open(const std::string& path);

  // CheckObjectPath, and InvalidArgument for what lies under ".peerchunk".
  static absl::Status CheckPath(std::string_view path);

  // NotFound when no plain file lies at `path`. The sidecar is read only when asked for.
  absl::StatusOr<LocalObject> OpenObject(std::string_view path, bool with_sidecar) const;

  // A file that will become an object.
  absl::StatusOr<TemporaryFile> Begin() const;
  // Syncs `pending` and makes it the object at `path`, under the options' conditions.
  absl::StatusOr<ObjectStat> Publish(TemporaryFile pending, std::string_view path,
                                     const LocalSidecar& sidecar,
                                     const WriteOptions& options) const;

  // Deletes every object below the folder `path`, asking `still_wanted` before each.
  absl::StatusOr<uint64_t> DeleteBelow(std::string_view path,
                                       const std::function<absl::Status()>& still_wanted) const;

 private:
  LocalFolder(File folder, File temporary)
      : folder_(std::move(folder)), temporary_(std::move(temporary)) {}

  absl::Status Missing() const;
  absl::StatusOr<std::optional<std::string>> CurrentVersion(std::string_view path) const;
  absl::StatusOr<File> LockPath(std::string_view path) const;
  absl::Status Rename(TemporaryFile& pending, std::string_view path, bool if_absent) const;
  void RemoveSidecars(std::string_view path, std::string_view except_version) const;
  absl::Status SyncFoldersOf(std::string_view path) const;

  File folder_;
  File temporary_;
};

}  // namespace peerchunk
