#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "peerchunk/base/build_id.h"

namespace peerchunk::header {

// Reads little-endian fields from foreign bytes, front to back. Each Read returns false, and moves
// nothing, when the bytes that remain do not hold the field. Borrows the bytes; one thread.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  uint64_t remaining() const { return rest_.size(); }
  std::string_view rest() const { return rest_; }

  bool ReadU8(uint8_t& value) { return ReadInteger(value); }
  bool ReadU32(uint32_t& value) { return ReadInteger(value); }
  bool ReadU64(uint64_t& value) { return ReadInteger(value); }
  bool ReadBuildId(BuildId& id) {
    std::array<uint8_t, BuildId::kBytes> bytes;
    if (!ReadBytes(bytes)) return false;
    id = BuildId(bytes);
    return true;
  }
  template <size_t kSize>
  bool ReadBytes(std::array<uint8_t, kSize>& bytes) {
    if (rest_.size() < kSize) return false;
    std::copy_n(rest_.begin(), kSize, bytes.begin());
    rest_.remove_prefix(kSize);
    return true;
  }
  // LEB128 of at most 64 bits.
  bool ReadUvarint(uint64_t& value) {
    uint64_t result = 0;
    for (size_t i = 0; i < rest_.size() && i < 10; ++i) {
      const auto byte = static_cast<uint8_t>(rest_[i]);
      if (i == 9 && byte > 1) return false;
      result |= uint64_t{byte & 0x7Fu} << (7 * i);
      if (byte < 0x80) {
        value = result;
        rest_.remove_prefix(i + 1);
        return true;
      }
    }
    return false;
  }

 private:
  template <typename T>
  bool ReadInteger(T& value) {
    if (rest_.size() < sizeof(T)) return false;
    T result = 0;
    for (size_t i = 0; i < sizeof(T); ++i) {
      result = static_cast<T>(result | T{static_cast<uint8_t>(rest_[i])} << (8 * i));
    }
    value = result;
    rest_.remove_prefix(sizeof(T));
    return true;
  }

  std::string_view rest_;
};

}  // namespace peerchunk::header
