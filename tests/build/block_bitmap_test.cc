#include "build/block_bitmap.h"

#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(BlockBitmapTest, RandomRangesAgreeWithAVectorOfBits) {
  std::mt19937 random(7);
  for (const uint64_t blocks : {1u, 63u, 64u, 65u, 200u}) {
    BlockBitmap bitmap(blocks);
    std::vector<bool> model(blocks, false);
    for (int step = 0; step < 200; ++step) {
      uint64_t begin = random() % (blocks + 1);
      uint64_t end = random() % (blocks + 1);
      if (begin > end) std::swap(begin, end);
      if (step % 4 == 0 && end - begin < 70) {
        uint64_t added = 0;
        for (uint64_t i = begin; i < end; ++i) {
          added += model[i] ? 0 : 1;
          model[i] = true;
        }
        EXPECT_EQ(bitmap.Set(begin, end), added);
      }
      uint64_t set = begin;
      while (set < end && !model[set]) ++set;
      uint64_t unset = begin;
      while (unset < end && model[unset]) ++unset;
      EXPECT_EQ(bitmap.FindSet(begin, end), set);
      EXPECT_EQ(bitmap.FindUnset(begin, end), unset);
      uint64_t unset_end = end;
      while (unset_end > begin && model[unset_end - 1]) --unset_end;
      EXPECT_EQ(bitmap.FindUnsetEnd(begin, end), unset_end);
      if (begin < blocks) {
        EXPECT_EQ(bitmap.IsSet(begin), model[begin]);
      }
    }
  }
}

TEST(BlockBitmapTest, WholeWordsAreSetAtOnce) {
  BlockBitmap bitmap(256);
  EXPECT_EQ(bitmap.Set(0, 256), 256u);
  EXPECT_EQ(bitmap.Set(0, 256), 0u);
  EXPECT_EQ(bitmap.FindUnset(0, 256), 256u);
}

TEST(BlockBitmapTest, ABlockIsClearedOnceAndAlone) {
  BlockBitmap bitmap(200);
  bitmap.Set(0, 200);
  EXPECT_TRUE(bitmap.Clear(63));
  EXPECT_FALSE(bitmap.Clear(63));
  EXPECT_TRUE(bitmap.Clear(199));
  EXPECT_EQ(bitmap.FindUnset(0, 200), 63u);
  EXPECT_EQ(bitmap.FindUnset(64, 200), 199u);
  EXPECT_EQ(bitmap.Set(0, 200), 2u);
}

// As when other threads set the last of them between two looks.
TEST(BlockBitmapTest, TheEndOfWhatIsUnsetIsNeverBeforeWhereItBegins) {
  BlockBitmap bitmap(128);
  bitmap.Set(0, 128);
  for (const uint64_t begin : {0, 64, 100, 127, 128}) {
    EXPECT_EQ(bitmap.FindUnsetEnd(begin, 128), begin);
  }
}

}  // namespace
}  // namespace peerchunk
