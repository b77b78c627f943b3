#include "tests/support/gcs/sparse_bytes.h"

#include <algorithm>
#include <cstring>

#include "peerchunk/base/crc32c.h"

namespace peerchunk::test {

void SparseBytes::Append(std::string_view data) {
  while (!data.empty()) {
    const uint64_t at = size_ % kChunkBytes;
    const std::string_view piece = data.substr(0, kChunkBytes - at);
    if (!IsAllZero(piece)) {
      std::string& chunk = chunks_[size_ / kChunkBytes];
      chunk.resize(kChunkBytes);
      std::memcpy(chunk.data() + at, piece.data(), piece.size());
    }
    size_ += piece.size();
    data.remove_prefix(piece.size());
  }
}

void SparseBytes::Append(const SparseBytes& other) {
  for (uint64_t offset = 0; offset < other.size(); offset += kChunkBytes) {
    Append(other.Read(offset, std::min(kChunkBytes, other.size() - offset)));
  }
}

void SparseBytes::Truncate(uint64_t size) {
  size_ = size;
  const uint64_t kept = size / kChunkBytes + (size % kChunkBytes == 0 ? 0 : 1);
  chunks_.erase(chunks_.lower_bound(kept), chunks_.end());
  const auto last = chunks_.find(size / kChunkBytes);
  if (last == chunks_.end()) return;
  std::fill(last->second.begin() + static_cast<ptrdiff_t>(size % kChunkBytes), last->second.end(),
            '\0');
}

std::string SparseBytes::Read(uint64_t offset, uint64_t length) const {
  std::string out(length, '\0');
  for (auto it = chunks_.lower_bound(offset / kChunkBytes); it != chunks_.end(); ++it) {
    const uint64_t begin = std::max(offset, it->first * kChunkBytes);
    const uint64_t end = std::min(offset + length, (it->first + 1) * kChunkBytes);
    if (begin >= end) break;
    std::memcpy(out.data() + (begin - offset), it->second.data() + begin % kChunkBytes,
                end - begin);
  }
  return out;
}

uint32_t SparseBytes::crc32c() const {
  uint32_t crc32c = 0;
  uint64_t done = 0;
  for (const auto& [index, chunk] : chunks_) {
    const uint64_t begin = index * kChunkBytes;
    const uint64_t zeros = begin - done;
    crc32c = CombineCrc32c(crc32c, Crc32cOfZeros(zeros), zeros);
    const uint64_t length = std::min(kChunkBytes, size_ - begin);
    crc32c = ExtendCrc32c(crc32c, std::string_view(chunk).substr(0, length));
    done = begin + length;
  }
  return CombineCrc32c(crc32c, Crc32cOfZeros(size_ - done), size_ - done);
}

}  // namespace peerchunk::test
