#include "peerchunk/base/crc32c.h"

#include <array>

#include <isa-l/crc.h>
#include <isa-l/mem_routines.h>

#include "peerchunk/base/range.h"

namespace peerchunk {
namespace {

// Polynomials over GF(2) modulo the Castagnoli polynomial, in the reflected order of the CRC: the
// highest bit is the coefficient of x^0.
constexpr uint32_t kPolynomial = 0x82F63B78;
constexpr uint32_t kOne = uint32_t{1} << 31;
constexpr uint32_t kXToThe8 = uint32_t{1} << 23;

constexpr uint32_t Multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = kOne; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) product ^= b;
    b = (b & 1) != 0 ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

// [k] is x^(8 * 2^k): what 2^k zero bytes multiply a CRC register by.
constexpr std::array<uint32_t, 64> kShiftByPowerOfTwoBytes = [] {
  std::array<uint32_t, 64> powers{};
  uint32_t power = kXToThe8;
  for (uint32_t& entry : powers) {
    entry = power;
    power = Multiply(power, power);
  }
  return powers;
}();

uint32_t ShiftByBytes(uint32_t value, uint64_t bytes) {
  for (size_t k = 0; bytes != 0; ++k, bytes >>= 1) {
    if ((bytes & 1) != 0) value = Multiply(kShiftByPowerOfTwoBytes[k], value);
  }
  return value;
}

}  // namespace

uint32_t Crc32c(std::string_view data) { return ExtendCrc32c(0, data); }

uint32_t ExtendCrc32c(uint32_t crc_of_a, std::string_view b) {
  uint32_t state = ~crc_of_a;
  while (!b.empty()) {
    const std::string_view piece = b.substr(0, kGiB);  // ISA-L's length is an int.
    // ISA-L only reads; its signature predates const.
    auto* bytes = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(piece.data()));
    state = crc32_iscsi(bytes, static_cast<int>(piece.size()), state);
    b.remove_prefix(piece.size());
  }
  return ~state;
}

uint32_t CombineCrc32c(uint32_t crc_of_a, uint32_t crc_of_b, uint64_t length_of_b) {
  return ShiftByBytes(crc_of_a, length_of_b) ^ crc_of_b;
}

uint32_t Crc32cOfZeros(uint64_t length) { return ~ShiftByBytes(~uint32_t{0}, length); }

bool IsAllZero(std::string_view data) {
  return data.empty() || isal_zero_detect(const_cast<char*>(data.data()), data.size()) == 0;
}

}  // namespace peerchunk
