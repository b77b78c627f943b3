#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "peerchunk/base/range.h"

namespace peerchunk {

// Half-open, in blocks of a file.
struct BlockRange {
  uint64_t begin = 0;
  uint64_t end = 0;

  bool empty() const { return begin >= end; }
  bool Contains(uint64_t block) const { return begin <= block && block < end; }
  friend bool operator==(const BlockRange&, const BlockRange&) = default;
};

// One bit per block of a file. Lock-free: who sees a bit set also sees what its setter did before.
// Thread-safe.
class BlockBitmap {
 public:
  explicit BlockBitmap(uint64_t blocks)
      : blocks_(blocks), words_(new std::atomic<uint64_t>[CeilDiv(blocks, kBits)]()) {}

  uint64_t blocks() const { return blocks_; }
  bool IsSet(uint64_t block) const {
    return (words_[block / kBits].load(std::memory_order_acquire) >> (block % kBits) & 1) != 0;
  }

  // The first block in [begin, end) that is set (or that is not), or `end`.
  uint64_t FindSet(uint64_t begin, uint64_t end) const { return Find(begin, end, 0); }
  uint64_t FindUnset(uint64_t begin, uint64_t end) const { return Find(begin, end, ~uint64_t{0}); }

  // Where the last block in [begin, end) that is not set ends, or `begin`.
  uint64_t FindUnsetEnd(uint64_t begin, uint64_t end) const {
    while (end > begin && IsSet(end - 1)) --end;
    return end;
  }

  // Sets [begin, end); returns how many were not set before.
  uint64_t Set(uint64_t begin, uint64_t end) {
    uint64_t added = 0;
    while (begin < end) {
      const uint64_t bit = begin % kBits;
      const uint64_t count = std::min(kBits - bit, end - begin);
      const uint64_t mask = (count == kBits ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << bit;
      const uint64_t before = words_[begin / kBits].fetch_or(mask, std::memory_order_acq_rel);
      added += static_cast<uint64_t>(std::popcount(mask & ~before));
      begin += count;
    }
    return added;
  }

  // Unsets `block`; false: it was not set.
  bool Clear(uint64_t block) {
    const uint64_t mask = uint64_t{1} << (block % kBits);
    return (words_[block / kBits].fetch_and(~mask, std::memory_order_acq_rel) & mask) != 0;
  }

 private:
  static constexpr uint64_t kBits = 64;

  uint64_t Find(uint64_t begin, uint64_t end, uint64_t flip) const {
    while (begin < end) {
      const uint64_t word = words_[begin / kBits].load(std::memory_order_acquire) ^ flip;
      const uint64_t rest = word >> (begin % kBits);
      if (rest != 0) {
        return std::min(end, begin + static_cast<uint64_t>(std::countr_zero(rest)));
      }
      begin += kBits - begin % kBits;
    }
    return end;
  }

  const uint64_t blocks_;
  const std::unique_ptr<std::atomic<uint64_t>[]> words_;
};

}  // namespace peerchunk
