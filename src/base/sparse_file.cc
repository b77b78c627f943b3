#include "base/sparse_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "peerchunk/base/status.h"

namespace peerchunk {

absl::StatusOr<FileSegment> SegmentAt(const File& file, uint64_t offset, uint64_t end) {
  const off_t data = lseek(file.fd(), static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0) {
    if (errno == ENXIO)
      return FileSegment{offset, end, true};  // No data up to the end of the file.
    if (errno == EINVAL) return FileSegment{offset, end, false};
    return ErrnoStatus(errno, "look for data");
  }
  if (static_cast<uint64_t>(data) > offset) {
    return FileSegment{offset, std::min(static_cast<uint64_t>(data), end), true};
  }
  const off_t hole = lseek(file.fd(), data, SEEK_HOLE);
  if (hole < 0) return ErrnoStatus(errno, "look for a hole");
  // A file that shrinks meanwhile may put the hole at `offset`; a read then tells.
  const uint64_t data_end =
      static_cast<uint64_t>(hole) > offset ? static_cast<uint64_t>(hole) : end;
  return FileSegment{offset, std::min(data_end, end), false};
}

}  // namespace peerchunk
