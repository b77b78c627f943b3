#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace peerchunk::test {

// A byte string whose runs of zeros take no memory. One thread at a time.
class SparseBytes {
 public:
  uint64_t size() const { return size_; }
  void Append(std::string_view data);
  void Append(const SparseBytes& other);
  void Truncate(uint64_t size);                              // <= size().
  std::string Read(uint64_t offset, uint64_t length) const;  // Inside.
  uint32_t crc32c() const;

 private:
  static constexpr uint64_t kChunkBytes = 64 * 1024;
  uint64_t size_ = 0;
  std::map<uint64_t, std::string> chunks_;  // By index; each kChunkBytes long; zeros beyond size_.
};

}  // namespace peerchunk::test
