#include "base/bulk_copy.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdint>

namespace peerchunk {

#if defined(__x86_64__)
namespace {

constexpr size_t kVector = sizeof(__m256i);
constexpr size_t kStride = 4 * kVector;

// `to` is a multiple of kVector, `length` one of kStride.
__attribute__((target("avx"))) void StreamVectors(char* to, const char* from, size_t length) {
  for (size_t at = 0; at < length; at += kStride) {
    const auto* const source = reinterpret_cast<const __m256i*>(from + at);
    auto* const target = reinterpret_cast<__m256i*>(to + at);
    const __m256i a = _mm256_loadu_si256(source);
    const __m256i b = _mm256_loadu_si256(source + 1);
    const __m256i c = _mm256_loadu_si256(source + 2);
    const __m256i d = _mm256_loadu_si256(source + 3);
    _mm256_stream_si256(target, a);
    _mm256_stream_si256(target + 1, b);
    _mm256_stream_si256(target + 2, c);
    _mm256_stream_si256(target + 3, d);
  }
  _mm_sfence();
}

}  // namespace

void CopyPastCaches(char* to, const char* from, size_t length) {
  static const bool can_stream = __builtin_cpu_supports("avx") != 0;
  if (can_stream) {
    const size_t misaligned = reinterpret_cast<uintptr_t>(to) % kVector;
    const size_t head = std::min(length, misaligned == 0 ? 0 : kVector - misaligned);
    std::memcpy(to, from, head);
    to += head;
    from += head;
    length -= head;
    const size_t streamed = length / kStride * kStride;
    if (streamed > 0) StreamVectors(to, from, streamed);
    to += streamed;
    from += streamed;
    length -= streamed;
  }
  std::memcpy(to, from, length);
}
#else
void CopyPastCaches(char* to, const char* from, size_t length) { std::memcpy(to, from, length); }
#endif

}  // namespace peerchunk
