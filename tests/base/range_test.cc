#include "peerchunk/base/range.h"

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(ByteRangeTest, ClipCutsAtTheEnd) {
  EXPECT_EQ(ByteRange::Clip(0, 10, 10), (ByteRange{0, 10}));
  EXPECT_EQ(ByteRange::Clip(3, 10, 10), (ByteRange{3, 7}));
  EXPECT_EQ(ByteRange::Clip(3, std::nullopt, 10), (ByteRange{3, 7}));
  EXPECT_EQ(ByteRange::Clip(10, 1, 10), (ByteRange{10, 0}));
  EXPECT_EQ(ByteRange::Clip(0, 0, 0), (ByteRange{0, 0}));
  EXPECT_EQ(ByteRange::Clip(1, UINT64_MAX, 10), (ByteRange{1, 9}));
  EXPECT_EQ(ByteRange::Clip(1, UINT64_MAX, UINT64_MAX), (ByteRange{1, UINT64_MAX - 1}));
}

TEST(ByteRangeTest, OffsetPastTheEndIsNoRange) {
  EXPECT_EQ(ByteRange::Clip(11, 0, 10), std::nullopt);
  EXPECT_EQ(ByteRange::Clip(UINT64_MAX, UINT64_MAX, 10), std::nullopt);
  EXPECT_EQ(ByteRange::Clip(1, std::nullopt, 0), std::nullopt);
}

TEST(RoundUpTest, KeepsMultiplesAndRaisesTheRest) {
  EXPECT_EQ(RoundUp(0, 4096), 0u);
  EXPECT_EQ(RoundUp(1, 4096), 4096u);
  EXPECT_EQ(RoundUp(4096, 4096), 4096u);
  EXPECT_EQ(CeilDiv(0, 4096), 0u);
  EXPECT_EQ(CeilDiv(4097, 4096), 2u);
  EXPECT_EQ(CeilDiv(UINT64_MAX, 2), uint64_t{1} << 63);
}

}  // namespace
}  // namespace peerchunk
