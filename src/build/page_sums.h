#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

#include "peerchunk/base/range.h"
#include "peerchunk/build/local_build_file.h"
#include "peerchunk/build/runs.h"

namespace peerchunk {

// What is remembered of a block whose bytes matched the record: the CRC32C of each of its pages,
// and which of them are zero. The last page of a file may be short.
struct PageSums {
  static constexpr size_t kPages = FileChecksums::kBlockBytes / kPageBytes;

  std::array<uint32_t, kPages> crc32c{};
  std::bitset<kPages> zero;
  // A page was found changed: the block is checked here from then on, whoever reads it.
  mutable std::atomic<bool> spoilt{false};

  // Those of `block`, at most kPages pages.
  explicit PageSums(std::string_view block);

  // The checksum of the block, which has `length` bytes.
  uint32_t OfBlock(uint64_t length) const;

  // The runs of [offset, offset + length) of the block, as CutIntoRuns makes them of its bytes, by
  // offset from `offset`, as far as their data are not more than `most_data_bytes`. `offset` is the
  // begin of a page; the end is one, or that of the file.
  std::vector<Run> Runs(uint64_t offset, uint64_t length, uint64_t most_data_bytes) const;

  // True when page `index` has `bytes`.
  bool Matches(uint64_t index, std::string_view bytes) const;
};

}  // namespace peerchunk
