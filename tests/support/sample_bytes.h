#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace peerchunk::test {

// `size` bytes that look random, the same for the same seed, with no zero page among them.
std::string SampleBytes(size_t size, uint64_t seed);

}  // namespace peerchunk::test
