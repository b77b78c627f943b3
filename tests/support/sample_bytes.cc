#include "tests/support/sample_bytes.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace peerchunk::test {

std::string SampleBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (size_t offset = 0; offset < size; offset += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + offset, &word, std::min(sizeof word, size - offset));
  }
  return bytes;
}

}  // namespace peerchunk::test
