#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace peerchunk {

// CRC32C (Castagnoli, RFC 3720 section 12.1) as Cloud Storage uses it: Crc32c("123456789") ==
// 0xE3069283. Any thread; tens of GB/s through ISA-L.
uint32_t Crc32c(std::string_view data);

// The CRC of `a + b` from the CRC of `a` and the bytes of `b`.
uint32_t ExtendCrc32c(uint32_t crc_of_a, std::string_view b);

// The CRC of `a + b` from both CRCs and b's length in bytes, in O(log length).
uint32_t CombineCrc32c(uint32_t crc_of_a, uint32_t crc_of_b, uint64_t length_of_b);

// The CRC of `length` zero bytes, in O(log length).
uint32_t Crc32cOfZeros(uint64_t length);

// True when every byte is zero (ISA-L's vectorised scan).
bool IsAllZero(std::string_view data);

}  // namespace peerchunk
