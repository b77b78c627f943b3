#include "template/access_trace.h"

#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/range.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk::test {
namespace {

using testing::ElementsAre;

class AccessTraceTest : public testing::Test {
 protected:
  SimulatedClock clock_;
  AccessTrace trace_{1000 * kPageBytes, kPageBytes, &clock_};
};

TEST_F(AccessTraceTest, KeepsTheOrderOfFirstReads) {
  trace_.Note(7 * kPageBytes + 1, kPageBytes);
  trace_.Note(3 * kPageBytes, 10);
  trace_.Note(6 * kPageBytes, 3 * kPageBytes);
  trace_.Note(3 * kPageBytes, 0);
  clock_.Advance(kTraceSettledAfter);
  const auto set = trace_.TakeSettled();
  ASSERT_TRUE(set.has_value());
  EXPECT_EQ(set->block_bytes, kPageBytes);
  EXPECT_THAT(set->blocks, ElementsAre(7, 8, 3, 6));
}

TEST_F(AccessTraceTest, IsTakenWhenReadsPauseAndAgainWhenThereAreMore) {
  EXPECT_EQ(trace_.TakeSettled(), std::nullopt) << "nothing was read";
  trace_.Note(0, 1);
  EXPECT_EQ(trace_.TakeSettled(), std::nullopt) << "reads go on";
  clock_.Advance(kTraceSettledAfter);
  EXPECT_TRUE(trace_.TakeSettled().has_value());
  EXPECT_EQ(trace_.TakeSettled(), std::nullopt) << "nothing new";
  trace_.Note(kPageBytes, 1);
  EXPECT_EQ(trace_.TakeSettled(), std::nullopt);
  clock_.Advance(kTraceSettledAfter);
  EXPECT_THAT(trace_.TakeSettled()->blocks, ElementsAre(0, 1));
}

TEST_F(AccessTraceTest, EndsAWhileAfterTheFirstRead) {
  trace_.Note(0, 1);
  for (uint64_t i = 1; i < 30; ++i) {
    clock_.Advance(absl::Seconds(1));
    trace_.Note(i * kPageBytes, 1);
  }
  const auto set = trace_.TakeSettled();  // Though reads never paused.
  ASSERT_TRUE(set.has_value());
  EXPECT_EQ(set->blocks.size(), 11u);
  trace_.Note(900 * kPageBytes, 1);
  clock_.Advance(absl::Hours(1));
  EXPECT_EQ(trace_.TakeSettled(), std::nullopt);
}

TEST_F(AccessTraceTest, IsBounded) {
  AccessTrace large((kMaxWorkingSetBlocks + 100) * kPageBytes, kPageBytes, &clock_);
  large.Note(0, (kMaxWorkingSetBlocks + 100) * kPageBytes);
  clock_.Advance(kTraceSettledAfter);
  EXPECT_EQ(large.TakeSettled()->blocks.size(), kMaxWorkingSetBlocks);
  AccessTrace huge((AccessTrace::kMaxBlocks + 1) * kPageBytes, kPageBytes, &clock_);
  huge.Note(0, 100);
  clock_.Advance(kTraceSettledAfter);
  EXPECT_EQ(huge.TakeSettled(), std::nullopt);
}

TEST_F(AccessTraceTest, ManyThreadsNoteEachBlockOnce) {
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([this] {
      for (uint64_t block = 0; block < 1000; ++block) trace_.Note(block * kPageBytes, kPageBytes);
    });
  }
  for (std::thread& reader : readers) reader.join();
  clock_.Advance(kTraceSettledAfter);
  EXPECT_EQ(trace_.TakeSettled()->blocks.size(), 1000u);
}

}  // namespace
}  // namespace peerchunk::test
