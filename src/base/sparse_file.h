#pragma once

#include <cstdint>

#include <absl/status/statusor.h>

#include "peerchunk/base/file.h"

namespace peerchunk {

// A run of a file that is either all data or all hole, half-open.
struct FileSegment {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool hole = false;
};

// The segment that begins at `offset` (< `end`), cut at `end`. A file system that does not tell
// holes answers data. Moves the file's position: one thread at a time per open file.
absl::StatusOr<FileSegment> SegmentAt(const File& file, uint64_t offset, uint64_t end);

}  // namespace peerchunk
