#pragma once

#include <cstdint>

namespace peerchunk {

// CombineCrc32c of a page, `length_of_b` == 4096, by table: a few nanoseconds.
uint32_t CombineCrc32cOfPage(uint32_t crc_of_a, uint32_t crc_of_page);

}  // namespace peerchunk
