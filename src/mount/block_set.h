#pragma once

#include <cstdint>
#include <vector>

#include <absl/container/flat_hash_map.h>

namespace peerchunk {

// A set of block indices: bits in words of 64, kept only where one is set, so that its memory
// follows what was written and not the size of a device. Not thread-safe.
class BlockSet {
 public:
  void Insert(uint64_t begin, uint64_t end);

  bool Contains(uint64_t block) const;
  // The first block in (block, end) whose membership differs from that of `block`; `end` when none.
  uint64_t EndOfRun(uint64_t block, uint64_t end) const;

  uint64_t size() const { return size_; }
  std::vector<uint64_t> Sorted() const;

 private:
  absl::flat_hash_map<uint64_t, uint64_t> words_;
  uint64_t size_ = 0;
};

}  // namespace peerchunk
