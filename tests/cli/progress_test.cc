#include "cli/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/range.h"

namespace peerchunk::cli {
namespace {

FetchFigures Half() {
  return {.file = "memfile",
          .total_size = 100 * kMiB,
          .total_done = 50 * kMiB,
          .from_peer = 30 * kMiB,
          .from_base = 10 * kMiB,
          .zeros = 10 * kMiB};
}

TEST(ProgressTest, TheLineHasShareRateRestAndSources) {
  EXPECT_EQ(ProgressLine(Half(), 25.0 * kMiB),
            "memfile             50% of 100.0 MiB, 25.0 MiB/s, 2s left; peer 60%, base 20%, zero "
            "20%");
}

TEST(ProgressTest, NothingKnownYetIsNoDivisionByZero) {
  EXPECT_EQ(ProgressLine({.file = "snapfile"}, 0), "snapfile           100% of 0 B, 0 B/s");
}

TEST(ProgressTest, PlainLinesComeEveryFewSecondsOnly) {
  testing::internal::CaptureStderr();
  {
    Progress progress(Progress::Style::kPlain);
    const absl::Time start = absl::UnixEpoch();
    FetchFigures figures = Half();
    figures.total_done = 0;
    progress.Show(figures, start);
    figures.total_done = 25 * kMiB;
    progress.Show(figures, start + absl::Seconds(4));
    figures.total_done = 50 * kMiB;
    progress.Show(figures, start + absl::Seconds(5));
    progress.Show(figures, start + absl::Seconds(6));
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), ProgressLine(Half(), 10.0 * kMiB) + "\n");
}

TEST(ProgressTest, OnATerminalTheLineIsRewrittenAndLeftFree) {
  testing::internal::CaptureStderr();
  {
    Progress progress(Progress::Style::kTerminal);
    FetchFigures figures = Half();
    figures.total_done = 0;
    progress.Show(figures, absl::UnixEpoch());
    progress.Show(Half(), absl::UnixEpoch() + absl::Seconds(1));
    figures = Half();
    figures.file = "m";
    figures.from_peer = figures.from_base = figures.zeros = 0;
    progress.Show(figures, absl::UnixEpoch() + absl::Seconds(2));
  }
  const std::string shown = testing::internal::GetCapturedStderr();
  const size_t second = shown.find('\r', 1);
  EXPECT_EQ(shown[0], '\r');
  ASSERT_NE(second, std::string::npos);
  EXPECT_EQ(shown.back(), '\n');
  // The shorter line covers the longer one.
  EXPECT_GE(shown.size() - 1 - second, second);
}

TEST(ProgressTest, SilentIsSilent) {
  testing::internal::CaptureStderr();
  {
    Progress progress(Progress::StyleOfStderr(/*silent=*/true));
    progress.Show(Half(), absl::UnixEpoch());
    progress.Show(Half(), absl::UnixEpoch() + absl::Seconds(10));
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace peerchunk::cli
