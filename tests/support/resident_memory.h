#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "peerchunk/base/range.h"

namespace peerchunk::test {

// Memory is no measure where a sanitizer keeps what was freed.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PEERCHUNK_TEST_UNDER_ASAN
#endif
#endif
#ifdef PEERCHUNK_TEST_UNDER_ASAN
inline constexpr bool kUnderAsan = true;
#else
inline constexpr bool kUnderAsan = false;
#endif

// A field of /proc/self/status, in bytes.
inline uint64_t OfThisProcess(const std::string& field) {
  std::ifstream status("/proc/self/status");
  std::string name;
  uint64_t kib = 0;
  while (status >> name) {
    if (name == field + ":" && status >> kib) return kib * kKiB;
    status.ignore(1'000, '\n');
  }
  return 0;
}

}  // namespace peerchunk::test
