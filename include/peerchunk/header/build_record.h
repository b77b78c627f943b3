#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "peerchunk/base/build_id.h"

namespace peerchunk {

// How a diff file is stored in the bucket (the numbers are those of header formats V4 and V5).
enum class Compression : uint8_t { kNone = 0, kZstd = 1, kLz4 = 2 };

// One frame of a compressed diff: `size_uncompressed` bytes of the file from `start_uncompressed`
// on are the `size_compressed` bytes of the object from `start_compressed` on.
struct Frame {
  uint64_t start_uncompressed = 0;
  uint64_t start_compressed = 0;
  uint32_t size_uncompressed = 0;
  uint32_t size_compressed = 0;

  uint64_t end_uncompressed() const { return start_uncompressed + size_uncompressed; }
  uint64_t end_compressed() const { return start_compressed + size_compressed; }

  friend bool operator==(const Frame&, const Frame&) = default;
};

// What a V4 or V5 header says about one build's diff file. `frames` holds the frames that the
// header's mappings need, and every frame where the build is the header's own; it is empty for
// Compression::kNone.
struct BuildRecord {
  BuildId build_id;
  uint64_t file_size = 0;                         // uncompressed
  std::optional<std::array<uint8_t, 32>> sha256;  // of the uncompressed file, where known
  Compression compression = Compression::kNone;
  std::vector<Frame> frames;

  friend bool operator==(const BuildRecord&, const BuildRecord&) = default;
};

}  // namespace peerchunk
