#pragma once

#include <cstdint>
#include <string>

#include "peerchunk/base/build_id.h"

namespace peerchunk::header {

// Appends little-endian fields to a string: the inverse of ByteReader.

inline void AppendU8(std::string& out, uint8_t value) { out.push_back(static_cast<char>(value)); }

template <typename T>
void AppendInteger(std::string& out, T value) {
  char bytes[sizeof(T)];
  for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = static_cast<char>(value >> (8 * i));
  out.append(bytes, sizeof(T));
}
inline void AppendU32(std::string& out, uint32_t value) { AppendInteger(out, value); }
inline void AppendU64(std::string& out, uint64_t value) { AppendInteger(out, value); }

inline void AppendBuildId(std::string& out, const BuildId& id) {
  out.append(id.bytes().begin(), id.bytes().end());
}

constexpr uint64_t UvarintSize(uint64_t value) {
  uint64_t size = 1;
  for (; value >= 0x80; value >>= 7) ++size;
  return size;
}
inline void AppendUvarint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) AppendU8(out, static_cast<uint8_t>(value | 0x80));
  AppendU8(out, static_cast<uint8_t>(value));
}

// Small numbers of either sign as small unsigned ones: 0, -1, 1, -2 become 0, 1, 2, 3.
constexpr uint64_t ZigZag(int64_t value) {
  return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}
constexpr int64_t UnZigZag(uint64_t value) {
  return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1));
}

}  // namespace peerchunk::header
