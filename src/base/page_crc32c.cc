#include "peerchunk/base/page_crc32c.h"

#include <array>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"

namespace peerchunk {
namespace {

// [i][b] is b, as byte i of a register, after a page of zero bytes: a shift is linear, so that of a
// register is the sum of those of its bytes.
using ShiftTable = std::array<std::array<uint32_t, 256>, 4>;

ShiftTable MakeShiftByPage() {
  ShiftTable table{};
  for (size_t i = 0; i < table.size(); ++i) {
    for (uint32_t bit = 1; bit < 256; bit <<= 1) {
      const uint32_t shifted = CombineCrc32c(bit << (8 * i), 0, kPageBytes);
      for (uint32_t lower = 0; lower < bit; ++lower) {
        table[i][bit | lower] = table[i][lower] ^ shifted;
      }
    }
  }
  return table;
}

}  // namespace

uint32_t CombineCrc32cOfPage(uint32_t crc_of_a, uint32_t crc_of_page) {
  static const ShiftTable shift = MakeShiftByPage();
  return shift[0][crc_of_a & 0xff] ^ shift[1][crc_of_a >> 8 & 0xff] ^
         shift[2][crc_of_a >> 16 & 0xff] ^ shift[3][crc_of_a >> 24] ^ crc_of_page;
}

}  // namespace peerchunk
