#include "base/byte_size.h"

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(ByteSizeTest, WhatPeopleWriteIsUnderstood) {
  EXPECT_EQ(*ParseByteSize("0"), 0u);
  EXPECT_EQ(*ParseByteSize("4096"), 4096u);
  EXPECT_EQ(*ParseByteSize("256KiB"), 256u << 10);
  EXPECT_EQ(*ParseByteSize("20MiB"), 20u << 20);
  EXPECT_EQ(*ParseByteSize("1.5GiB"), 3ull << 29);
  EXPECT_EQ(*ParseByteSize("2TiB"), 2ull << 40);
  EXPECT_EQ(*ParseByteSize("18446744073709551615"), UINT64_MAX);
}

TEST(ByteSizeTest, WhatIsAmbiguousOrTooLargeIsNot) {
  for (const char* const text :
       {"", "KiB", "-1", "1 MiB", "1MB", "1M", "1mib", "1.5", "1..5KiB", ".KiB", "1e3", "0x10",
        "18446744073709551616", "16777216TiB", "99999999999999999999.5TiB", "1KiBs"}) {
    EXPECT_FALSE(ParseByteSize(text).ok()) << text;
  }
}

TEST(ByteSizeTest, TheExactFormIsReadBack) {
  for (const uint64_t bytes :
       {uint64_t{0}, uint64_t{1}, uint64_t{1024}, uint64_t{1025}, uint64_t{5} << 20,
        uint64_t{3} << 29, uint64_t{1} << 62, UINT64_MAX}) {
    EXPECT_EQ(*ParseByteSize(ExactByteSize(bytes)), bytes) << ExactByteSize(bytes);
  }
  EXPECT_EQ(ExactByteSize(256 * 1024), "256KiB");
}

TEST(ByteSizeTest, PeopleGetOneDigitAfterThePoint) {
  EXPECT_EQ(HumanByteSize(0), "0 B");
  EXPECT_EQ(HumanByteSize(1023), "1023 B");
  EXPECT_EQ(HumanByteSize(1536), "1.5 KiB");
  EXPECT_EQ(HumanByteSize(5.0 * (1ull << 40)), "5.0 TiB");
}

}  // namespace
}  // namespace peerchunk
