#include "build/read_ahead.h"

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace peerchunk::test {
namespace {

constexpr uint64_t kChunk = 256 * kKiB;
constexpr uint64_t kRead = 16 * kKiB;

class ReadAheadTest : public testing::Test {
 protected:
  // Reads [begin, end) in order; returns what was to be fetched meanwhile.
  std::vector<ByteRange> ReadInOrder(uint64_t begin, uint64_t end, uint64_t step = kRead) {
    std::vector<ByteRange> ahead;
    for (uint64_t at = begin; at < end; at += step) {
      const ByteRange asked = policy_.OnRead({at, std::min(step, end - at)}, true);
      if (!asked.empty()) ahead.push_back(asked);
    }
    return ahead;
  }
  static uint64_t Sum(const std::vector<ByteRange>& ranges) {
    uint64_t sum = 0;
    for (const ByteRange& range : ranges) sum += range.length;
    return sum;
  }

  ReadAhead policy_{
      {.file_bytes = 256 * kMiB, .chunk_bytes = kChunk, .max_window_bytes = 8 * kMiB}};
};

TEST_F(ReadAheadTest, BeginsWithOneChunkOnceAWholeOneWasReadInOrder) {
  EXPECT_TRUE(ReadInOrder(0, kChunk - kRead).empty());
  const auto ahead = ReadInOrder(kChunk - kRead, kChunk);
  ASSERT_EQ(ahead.size(), 1u);
  EXPECT_EQ(ahead[0], (ByteRange{kChunk, kChunk}));
}

TEST_F(ReadAheadTest, GrowsToItsLimitWithWhatIsUsed) {
  const auto ahead = ReadInOrder(0, 128 * kMiB);
  uint64_t end = kChunk;
  uint64_t widest = 0;
  for (const ByteRange& range : ahead) {
    EXPECT_EQ(range.offset, end) << "no gap, and nothing twice";
    EXPECT_EQ(range.length % kChunk, 0u);
    end = range.end();
    widest = std::max(widest, range.length);
  }
  EXPECT_GE(widest, 4 * kMiB);
  EXPECT_GT(end, 128 * kMiB);
  EXPECT_LE(end, 136 * kMiB) << "no further than the window";
  EXPECT_EQ(policy_.totals().used, 128 * kMiB - kChunk);
  EXPECT_EQ(policy_.totals().asked, Sum(ahead));
}

TEST_F(ReadAheadTest, EndsWithTheFile) {
  ReadAhead policy({.file_bytes = kMiB + 5, .chunk_bytes = kChunk, .max_window_bytes = 8 * kMiB});
  uint64_t end = 0;
  for (uint64_t at = 0; at < kMiB + 5; at += kRead) {
    const ByteRange asked = policy.OnRead({at, std::min(kRead, kMiB + 5 - at)}, true);
    if (!asked.empty()) end = asked.end();
  }
  EXPECT_EQ(end, kMiB + 5);
  EXPECT_EQ(policy.totals().used, policy.totals().asked);
}

TEST_F(ReadAheadTest, ScatteredReadsGetNothing) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 10000; ++i) {
    const uint64_t at = random() % (256 * kMiB / kRead) * kRead;
    EXPECT_TRUE(policy_.OnRead({at, kRead}, true).empty());
  }
  EXPECT_EQ(policy_.totals().asked, 0u);
}

TEST_F(ReadAheadTest, ReadingOnePlaceAgainAndAgainIsNoSequence) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(policy_.OnRead({0, kMiB}, true).empty());
    EXPECT_TRUE(policy_.OnRead({kMiB - kRead, kRead}, true).empty());
  }
}

TEST_F(ReadAheadTest, StopsWhenItIsNotUsed) {
  // Sequences that end just when something was read ahead of them.
  for (uint64_t i = 0; i < 100; ++i) ReadInOrder(i * 2 * kMiB, i * 2 * kMiB + kChunk);
  EXPECT_EQ(policy_.totals().asked, 4 * kChunk);
  EXPECT_EQ(policy_.totals().used, 0u);
}

TEST_F(ReadAheadTest, WhatWasUsedBuysSomeMore) {
  ReadInOrder(0, 32 * kMiB);
  const ReadAhead::Totals before = policy_.totals();
  for (uint64_t i = 20; i < 100; ++i) ReadInOrder(i * 2 * kMiB, i * 2 * kMiB + kChunk);
  const ReadAhead::Totals after = policy_.totals();
  EXPECT_GT(after.asked, before.asked);
  EXPECT_LE(after.asked - after.used, 4 * kChunk + after.used / 2);
}

TEST_F(ReadAheadTest, FollowsFourSequencesAtOnce) {
  for (uint64_t at = 0; at < 4 * kMiB; at += kRead) {
    for (uint64_t i = 0; i < 4; ++i) policy_.OnRead({i * 32 * kMiB + at, kRead}, true);
  }
  EXPECT_GE(policy_.totals().used, 14 * kMiB);
}

TEST_F(ReadAheadTest, ScatteredReadsDoNotPushASequenceOut) {
  std::mt19937_64 random(2);
  for (uint64_t at = 0; at < 16 * kMiB; at += kRead) {
    policy_.OnRead({at, kRead}, true);
    const uint64_t elsewhere = (64 + random() % 128) * kMiB;
    policy_.OnRead({elsewhere, kRead}, true);
  }
  EXPECT_GE(policy_.totals().used, 12 * kMiB);
}

TEST_F(ReadAheadTest, ReadsALittleOutOfOrderAreStillASequence) {
  for (uint64_t at = 0; at < 4 * kMiB; at += 2 * kRead) {
    policy_.OnRead({at + kRead, kRead}, true);
    policy_.OnRead({at, kRead}, true);
  }
  EXPECT_GE(policy_.totals().used, 3 * kMiB);
}

TEST_F(ReadAheadTest, ASequenceThatNeverMissesBeginsNowhere) {
  for (uint64_t at = 0; at < 4 * kMiB; at += kRead) {
    EXPECT_TRUE(policy_.OnRead({at, kRead}, false).empty());
  }
}

TEST_F(ReadAheadTest, CanBeTurnedOff) {
  ReadAhead off({.file_bytes = kMiB, .chunk_bytes = kChunk, .max_window_bytes = 0});
  for (uint64_t at = 0; at < kMiB; at += kRead) {
    EXPECT_TRUE(off.OnRead({at, kRead}, true).empty());
  }
}

TEST_F(ReadAheadTest, ManyThreadsStayWithinTheLimits) {
  std::vector<std::thread> readers;
  for (uint64_t i = 0; i < 6; ++i) {
    readers.emplace_back([this, i] { ReadInOrder(i * 40 * kMiB, i * 40 * kMiB + 8 * kMiB); });
  }
  for (std::thread& reader : readers) reader.join();
  const ReadAhead::Totals totals = policy_.totals();
  EXPECT_LE(totals.used, totals.asked);
  EXPECT_LE(totals.asked - totals.used, 4 * kChunk + totals.used / 2);
}

}  // namespace
}  // namespace peerchunk::test
