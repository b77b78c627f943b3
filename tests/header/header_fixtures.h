#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/range.h"
#include "peerchunk/header/header.h"

namespace peerchunk::header_testing {

inline BuildId Id(std::string_view text) { return BuildId::Parse(text).value(); }

// The n-th of a family of ids; ascending with n, never nil.
inline BuildId NumberedId(uint32_t n) {
  std::array<uint8_t, BuildId::kBytes> bytes{};
  bytes[0] = 0x11;
  for (int i = 0; i < 4; ++i) bytes[4 + i] = static_cast<uint8_t>(n >> (24 - 8 * i));
  return BuildId(bytes);
}

// A, a base, and B, its child, in which one page was written and one zeroed.
inline const BuildId kA = Id("aaaaaaaa-0000-4000-8000-000000000001");
inline const BuildId kB = Id("bbbbbbbb-0000-4000-8000-000000000002");

inline HeaderMetadata Metadata(uint64_t version, uint64_t size, BuildId build = kA) {
  return {.version = version,
          .block_size = kPageBytes,
          .size = size,
          .generation = 0,
          .build_id = build,
          .base_build_id = build};
}

inline Header ExampleA() { return Header::CreateIdentity(Metadata(3, 0x4000)).value(); }
inline Header ExampleB(uint64_t version = 3) {
  return ExampleA()
      .WithVersion(version)
      .value()
      .NextGeneration(kB, {.dirty = {1}, .zeroed = {3}})
      .value();
}

// Bytes from hexadecimal text; blanks are skipped.
inline std::string FromHex(std::string_view text) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string bytes;
  int high = -1;
  for (const char c : text) {
    if (c == ' ' || c == '\n') continue;
    if (high < 0) {
      high = digit(c);
    } else {
      bytes.push_back(static_cast<char>(high << 4 | digit(c)));
      high = -1;
    }
  }
  return bytes;
}

// `bytes` with the `value` written at `at`, little-endian.
template <typename T>
std::string Patched(std::string bytes, size_t at, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) bytes.at(at + i) = static_cast<char>(value >> (8 * i));
  return bytes;
}

}  // namespace peerchunk::header_testing
