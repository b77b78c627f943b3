#include "mount/block_set.h"

#include <algorithm>

namespace peerchunk {
namespace {

constexpr uint64_t kWordBits = 64;

constexpr uint64_t Bit(uint64_t block) { return uint64_t{1} << (block % kWordBits); }

}  // namespace

void BlockSet::Insert(uint64_t begin, uint64_t end) {
  for (uint64_t block = begin; block < end; ++block) {
    uint64_t& word = words_[block / kWordBits];
    if ((word & Bit(block)) != 0) continue;
    word |= Bit(block);
    ++size_;
  }
}

bool BlockSet::Contains(uint64_t block) const {
  const auto found = words_.find(block / kWordBits);
  return found != words_.end() && (found->second & Bit(block)) != 0;
}

uint64_t BlockSet::EndOfRun(uint64_t block, uint64_t end) const {
  const bool contained = Contains(block);
  uint64_t at = block + 1;
  while (at < end && Contains(at) == contained) ++at;
  return at;
}

std::vector<uint64_t> BlockSet::Sorted() const {
  std::vector<uint64_t> blocks;
  blocks.reserve(size_);
  for (const auto& [index, word] : words_) {
    for (uint64_t bit = 0; bit < kWordBits; ++bit) {
      if ((word & Bit(bit)) != 0) blocks.push_back(index * kWordBits + bit);
    }
  }
  std::sort(blocks.begin(), blocks.end());
  return blocks;
}

}  // namespace peerchunk
