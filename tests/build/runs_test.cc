#include "peerchunk/build/runs.h"

#include <random>
#include <string>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "tests/support/sample_bytes.h"

namespace peerchunk {
namespace {

TEST(CutIntoRunsTest, OnlyLongRunsOfZerosAreCutOut) {
  EXPECT_TRUE(CutIntoRuns("").empty());
  std::string bytes = test::SampleBytes(kMiB, 1);
  std::fill_n(bytes.begin() + kPageBytes, kMinZeroRunBytes - kPageBytes, '\0');
  EXPECT_EQ(CutIntoRuns(bytes).size(), kMiB / kMaxDataRunBytes);
  std::fill_n(bytes.begin() + kPageBytes, kMinZeroRunBytes, '\0');
  const auto runs = CutIntoRuns(bytes);
  ASSERT_EQ(runs.size(), 2 + CeilDiv(kMiB - kPageBytes - kMinZeroRunBytes, kMaxDataRunBytes));
  EXPECT_EQ(runs[1], (peerchunk::Run{kPageBytes, kMinZeroRunBytes, true, 0}));
  // All zero: one run, however short.
  EXPECT_EQ(CutIntoRuns(std::string(100, '\0')), (std::vector<peerchunk::Run>{{0, 100, true, 0}}));
}

TEST(CutIntoRunsTest, RunsOfRandomBytesAddUpToThem) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string bytes = test::SampleBytes(random() % kMiB, round);
    for (int holes = random() % 5; holes > 0 && !bytes.empty(); --holes) {
      const size_t at = random() % bytes.size();
      std::fill_n(bytes.begin() + at, std::min<size_t>(random() % kMiB, bytes.size() - at), '\0');
    }
    uint64_t at = 0;
    for (const peerchunk::Run& run : CutIntoRuns(bytes)) {
      ASSERT_EQ(run.offset, at);
      ASSERT_GT(run.length, 0u);
      ASSERT_TRUE(run.zero || run.length <= kMaxDataRunBytes);
      const std::string_view piece = std::string_view(bytes).substr(at, run.length);
      ASSERT_TRUE(run.zero ? IsAllZero(piece) : Crc32c(piece) == run.crc32c);
      at += run.length;
    }
    ASSERT_EQ(at, bytes.size());
  }
}

}  // namespace
}  // namespace peerchunk
