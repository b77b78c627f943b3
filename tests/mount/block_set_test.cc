#include "mount/block_set.h"

#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace peerchunk {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(BlockSetTest, EmptyContainsNothing) {
  const BlockSet set;
  EXPECT_FALSE(set.Contains(0));
  EXPECT_EQ(set.EndOfRun(0, 1000), 1000u);
  EXPECT_EQ(set.size(), 0u);
  EXPECT_THAT(set.Sorted(), IsEmpty());
}

TEST(BlockSetTest, RunsEndWhereMembershipChanges) {
  BlockSet set;
  set.Insert(60, 70);  // Across two words.
  EXPECT_EQ(set.EndOfRun(0, 1000), 60u);
  EXPECT_EQ(set.EndOfRun(60, 1000), 70u);
  EXPECT_EQ(set.EndOfRun(60, 65), 65u);
  EXPECT_EQ(set.EndOfRun(70, 1000), 1000u);
}

TEST(BlockSetTest, BlockInsertedTwiceCountsOnce) {
  BlockSet set;
  set.Insert(3, 5);
  set.Insert(4, 6);
  EXPECT_EQ(set.size(), 3u);
  EXPECT_THAT(set.Sorted(), ElementsAre(3, 4, 5));
}

TEST(BlockSetTest, LargestIndicesWork) {
  BlockSet set;
  const uint64_t last = (uint64_t{1} << 62) / 4096 - 1;
  set.Insert(last, last + 1);
  EXPECT_TRUE(set.Contains(last));
  EXPECT_THAT(set.Sorted(), ElementsAre(last));
}

TEST(BlockSetTest, AgreesWithASetOfIntegers) {
  std::mt19937 random(7);
  BlockSet set;
  std::set<uint64_t> model;
  for (int round = 0; round < 200; ++round) {
    const uint64_t begin = random() % 2000;
    const uint64_t end = begin + random() % 20;
    set.Insert(begin, end);
    for (uint64_t i = begin; i < end; ++i) model.insert(i);
  }
  EXPECT_EQ(set.size(), model.size());
  EXPECT_EQ(set.Sorted(), std::vector<uint64_t>(model.begin(), model.end()));
  for (uint64_t i = 0; i < 2100; ++i) ASSERT_EQ(set.Contains(i), model.contains(i)) << i;
}

}  // namespace
}  // namespace peerchunk
