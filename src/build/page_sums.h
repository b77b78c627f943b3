#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "peerchunk/base/range.h"
#include "peerchunk/build/local_build_file.h"
#include "peerchunk/build/runs.h"

namespace peerchunk {

// What is remembered of the checked bytes of a block: the CRC32C of each of its pages, and which of
// them are zero. The last page of a file may be short. Thread-safe.
class PageSums {
 public:
  static constexpr size_t kPages = FileChecksums::kBlockBytes / kPageBytes;

  // A page was found changed: the block is checked here from then on, whoever reads it.
  mutable std::atomic<bool> spoilt{false};

  // Of no page yet.
  PageSums() = default;
  // Those of `block`, at most kPages pages.
  explicit PageSums(std::string_view block);

  void Set(uint64_t index, uint32_t crc32c, bool zero);

  // The checksum of the block, which has `length` bytes.
  uint32_t OfBlock(uint64_t length) const;

  // The runs of [offset, offset + length) of the block, as CutIntoRuns makes them of its bytes, by
  // offset from `offset`, as far as their data are not more than `most_data_bytes`. `offset` is the
  // begin of a page; the end is one, or that of the file.
  std::vector<Run> Runs(uint64_t offset, uint64_t length, uint64_t most_data_bytes) const;

  // True when page `index` has `bytes`.
  bool Matches(uint64_t index, std::string_view bytes) const;

 private:
  static constexpr size_t kBits = 64;

  uint32_t CrcOf(uint64_t index) const { return crc32c_[index].load(std::memory_order_relaxed); }
  bool IsZero(uint64_t index) const {
    return (zero_[index / kBits].load(std::memory_order_relaxed) >> (index % kBits) & 1) != 0;
  }

  std::array<std::atomic<uint32_t>, kPages> crc32c_{};
  std::array<std::atomic<uint64_t>, kPages / kBits> zero_{};
};

}  // namespace peerchunk
