#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "peerchunk/base/range.h"

namespace peerchunk {

// A stretch of bytes on their way to another node: zeros, which do not travel, or data.
struct Run {
  uint64_t offset = 0;  // From where the bytes begin.
  uint64_t length = 0;
  bool zero = false;
  uint32_t crc32c = 0;  // Of data.

  friend bool operator==(const Run&, const Run&) = default;
};

// A shorter run of zeros is sent as data: a message costs more than it saves.
inline constexpr uint64_t kMinZeroRunBytes = 64 * kKiB;

// A longer run of data is cut: what is read and sent in pieces of this size stays in a core's cache
// in between.
inline constexpr uint64_t kMaxDataRunBytes = 256 * kKiB;

// `bytes` as runs, in order and without a gap. Zeros are looked for page by page; bytes that are
// all zero are one run of zeros, however few.
std::vector<Run> CutIntoRuns(std::string_view bytes);

}  // namespace peerchunk
