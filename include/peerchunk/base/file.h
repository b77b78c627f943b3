#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

namespace peerchunk {

// An open file or folder: a file descriptor that closes itself. Move-only; reads and writes by
// offset are thread-safe. Every operation retries EINTR and finishes partial transfers.
class File {
 public:
  File() = default;
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept;
  ~File();

  // Opens `path` itself (an operator's path). `flags` are open(2)'s; O_CLOEXEC is added.
  static absl::StatusOr<File> Open(const std::string& path, int flags, mode_t mode = 0640);
  // Opens `name` inside this folder. `name` may have '/' but no "..", and no symbolic link in it is
  // followed (openat2 RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS): what is named cannot lie outside.
  absl::StatusOr<File> OpenAt(std::string_view name, int flags, mode_t mode = 0640) const;

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }

  absl::StatusOr<uint64_t> Size() const;
  // Bytes of disk in use (st_blocks * 512): less than Size() for a sparse file.
  absl::StatusOr<uint64_t> AllocatedBytes() const;
  // Fills `out` from `offset`; short only at the end of the file.
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out) const;
  // True when all of `out` was in memory and is filled now; false: ReadAt may have to wait for the
  // disk (RWF_NOWAIT of preadv2(2)).
  bool ReadAtIfInMemory(uint64_t offset, absl::Span<char> out) const;
  absl::Status WriteAt(uint64_t offset, std::string_view data) const;
  absl::Status WriteVectorAt(uint64_t offset, absl::Span<const std::string_view> pieces) const;
  absl::Status Truncate(uint64_t size) const;
  absl::Status Sync() const;  // fsync

  // Folder operations; names as in OpenAt.
  absl::Status MakeFolder(std::string_view name) const;  // mkdir -p; 0750
  absl::Status Remove(std::string_view name) const;      // NotFound when it is not there
  absl::Status RemoveTree(std::string_view name) const;  // OK when it is not there
  absl::StatusOr<bool> Contains(std::string_view name) const;
  // Plain names of the entries, sorted, without "." and "..".
  absl::StatusOr<std::vector<std::string>> List() const;
  absl::StatusOr<std::string> ReadSmallFile(std::string_view name, uint64_t limit_bytes) const;
  // Writes `data` under a temporary name, syncs it, renames it over `name` and syncs the folder: a
  // reader or a crash sees the old bytes or the new ones.
  absl::Status ReplaceFile(std::string_view name, std::string_view data) const;

 private:
  int fd_ = -1;
};

// How ShareFile brought a file in, cheapest first.
enum class Handover { kReflink, kHardLink, kCopy };

// Makes the file at `source` also available as `name` in `folder`, by reflink, else hard link, else
// copy (holes stay holes). AlreadyExists when `name` exists. After kHardLink the caller must not
// write to its own path any more; a flipped byte is found by checksum, not prevented.
absl::StatusOr<Handover> ShareFile(const std::string& source, const File& folder,
                                   std::string_view name);

}  // namespace peerchunk
