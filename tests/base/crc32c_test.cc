#include "peerchunk/base/crc32c.h"

#include <sys/mman.h>

#include <algorithm>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "peerchunk/base/page_crc32c.h"
#include "peerchunk/base/range.h"
#include "tests/support/sample_bytes.h"

namespace peerchunk {
namespace {

using test::SampleBytes;

// Bit by bit from the definition.
uint32_t NaiveCrc32c(std::string_view data) {
  uint32_t crc = ~uint32_t{0};
  for (const char c : data) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82F63B78 : crc >> 1;
  }
  return ~crc;
}

// RFC 3720 B.4 and the check value of the polynomial.
TEST(Crc32cTest, KnownVectorsMatch) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AA);
  EXPECT_EQ(Crc32c(std::string(32, '\xFF')), 0x62A8AB43);
  std::string ascending;
  for (int i = 0; i < 32; ++i) ascending += static_cast<char>(i);
  EXPECT_EQ(Crc32c(ascending), 0x46DD794E);
}

TEST(Crc32cTest, EveryLengthAndAlignmentMatchesTheDefinition) {
  const std::string bytes = SampleBytes(600, 1);
  for (size_t start = 0; start < 16; ++start) {
    for (size_t length = 0; length < 500; length += 7) {
      const std::string_view piece = std::string_view(bytes).substr(start, length);
      ASSERT_EQ(Crc32c(piece), NaiveCrc32c(piece)) << start << " " << length;
    }
  }
}

TEST(Crc32cTest, APageCombinesByTableAsByArithmetic) {
  std::mt19937 random(9);
  for (int round = 0; round < 1000; ++round) {
    const auto a = static_cast<uint32_t>(random());
    const auto page = static_cast<uint32_t>(random());
    ASSERT_EQ(CombineCrc32cOfPage(a, page), CombineCrc32c(a, page, 4096));
  }
}

TEST(Crc32cTest, PiecesExtendAndCombineToTheWhole) {
  const std::string bytes = SampleBytes(10'000, 2);
  std::mt19937_64 random(3);
  for (int i = 0; i < 200; ++i) {
    const size_t cut = random() % (bytes.size() + 1);
    const std::string_view a = std::string_view(bytes).substr(0, cut);
    const std::string_view b = std::string_view(bytes).substr(cut);
    EXPECT_EQ(ExtendCrc32c(Crc32c(a), b), Crc32c(bytes));
    EXPECT_EQ(CombineCrc32c(Crc32c(a), Crc32c(b), b.size()), Crc32c(bytes));
  }
}

TEST(Crc32cTest, ZerosByArithmeticEqualZerosByReading) {
  for (const uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{4096}, uint64_t{1'000'003}}) {
    EXPECT_EQ(Crc32cOfZeros(length), Crc32c(std::string(length, '\0'))) << length;
  }
}

// The exponent of the polynomial arithmetic passes 2^64 here.
TEST(Crc32cTest, CombiningIsAssociativeForHugeLengths) {
  const uint32_t a = Crc32c("a");
  for (const uint64_t length : {uint64_t{1} << 40, uint64_t{1} << 63, UINT64_MAX - 5}) {
    const uint32_t zeros = Crc32cOfZeros(length);
    const uint32_t left = CombineCrc32c(CombineCrc32c(a, zeros, length), Crc32c("tail"), 4);
    const uint32_t right = CombineCrc32c(a, CombineCrc32c(zeros, Crc32c("tail"), 4), length + 4);
    EXPECT_EQ(left, right) << length;
    EXPECT_EQ(Crc32cOfZeros(length),
              CombineCrc32c(Crc32cOfZeros(length / 2), Crc32cOfZeros(length - length / 2),
                            length - length / 2));
  }
}

// ISA-L takes the length as an int. Untouched anonymous memory costs one page of zeros.
TEST(Crc32cTest, MoreThanFourGiBAreCountedWhole) {
  const uint64_t size = 4 * kGiB + 17;
  void* const memory =
      mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_EQ(Crc32c(std::string_view(static_cast<const char*>(memory), size)), Crc32cOfZeros(size));
  munmap(memory, size);
}

TEST(IsAllZeroTest, OneByteAnywhereIsSeen) {
  EXPECT_TRUE(IsAllZero(""));
  for (const size_t size : {1, 7, 31, 128, 129, 4096, 5000}) {
    std::string bytes(size, '\0');
    EXPECT_TRUE(IsAllZero(bytes)) << size;
    for (const size_t position : {size_t{0}, size / 2, size - 1}) {
      bytes[position] = '\x80';
      EXPECT_FALSE(IsAllZero(bytes)) << size << " " << position;
      bytes[position] = '\0';
    }
  }
}

}  // namespace
}  // namespace peerchunk
