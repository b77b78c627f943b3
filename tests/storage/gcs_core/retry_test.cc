#include "storage/gcs_core/retry.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/gcs/gcs_fixture.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;

class RetryTest : public testing::Test {
 protected:
  // How long the loop waits after each of `count` failures.
  std::vector<absl::Duration> Waits(RetryLoop& loop, int count, Code code = Code::kUnavailable) {
    std::vector<absl::Duration> waits;
    for (int i = 0; i < count; ++i) {
      const absl::Time before = gcs_.clock.Now();
      EXPECT_OK(loop.Next(absl::Status(code, "x"), 0));
      waits.push_back(gcs_.clock.Now() - before);
    }
    return waits;
  }

  GcsFixture gcs_;
  CallLimits limits_;
};

TEST_F(RetryTest, BackoffIsRandomBelowADoublingBound) {
  RetryPolicy policy = RetryPolicy::ForReads(gcs_.options.tuning);
  policy.budget = absl::Hours(100);
  std::vector<absl::Duration> most(10), sum(10);
  constexpr int kRounds = 300;
  for (int round = 0; round < kRounds; ++round) {
    RetryLoop loop(*gcs_.context, limits_, policy);
    const std::vector<absl::Duration> waits = Waits(loop, 10);
    for (size_t i = 0; i < waits.size(); ++i) {
      most[i] = std::max(most[i], waits[i]);
      sum[i] += waits[i];
    }
  }
  absl::Duration bound = absl::Milliseconds(50);
  for (size_t i = 0; i < most.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_LE(most[i], bound);
    EXPECT_GT(most[i], 0.9 * bound);
    EXPECT_NEAR(absl::ToDoubleSeconds(sum[i] / kRounds), absl::ToDoubleSeconds(bound / 2),
                0.15 * absl::ToDoubleSeconds(bound));
    bound = std::min(2 * bound, absl::Seconds(5));
  }
}

TEST_F(RetryTest, UploadsWaitLonger) {
  const RetryPolicy policy = RetryPolicy::ForWrites(gcs_.options.tuning);
  EXPECT_EQ(policy.backoff_first, absl::Milliseconds(200));
  EXPECT_EQ(policy.backoff_most, absl::Seconds(30));
  EXPECT_EQ(policy.budget, absl::Minutes(5));
}

TEST_F(RetryTest, ProgressBeginsBackoffAndBudgetAgain) {
  RetryPolicy policy = RetryPolicy::ForReads(gcs_.options.tuning);
  RetryLoop loop(*gcs_.context, limits_, policy);
  for (int i = 0; i < 20; ++i) {
    Waits(loop, 6);
    loop.Progress();
    EXPECT_LE(Waits(loop, 1)[0], absl::Milliseconds(50));
  }
}

TEST_F(RetryTest, PausedCodesWaitAtLeastThePause) {
  RetryPolicy policy = RetryPolicy::ForReads(gcs_.options.tuning);
  RetryLoop loop(*gcs_.context, limits_, policy);
  for (const absl::Duration wait : Waits(loop, 5, Code::kResourceExhausted)) {
    EXPECT_GE(wait, absl::Seconds(1));
  }
}

TEST_F(RetryTest, ConflictsPauseWritesOnly) {
  RetryLoop writes(*gcs_.context, limits_, RetryPolicy::ForWrites(gcs_.options.tuning));
  for (const absl::Duration wait : Waits(writes, 5, Code::kAborted)) {
    EXPECT_GE(wait, absl::Seconds(1));
  }
  RetryLoop reads(*gcs_.context, limits_, RetryPolicy::ForReads(gcs_.options.tuning));
  EXPECT_LE(Waits(reads, 1, Code::kAborted)[0], absl::Milliseconds(50));
}

TEST_F(RetryTest, ConflictsWithoutEndAreNoBrokenPrecondition) {
  RetryLoop loop(*gcs_.context, limits_, RetryPolicy::ForReads(gcs_.options.tuning));
  absl::Status status;
  while (status.ok()) status = loop.Next(absl::AbortedError("x"), {});
  EXPECT_EQ(status.code(), Code::kUnavailable);
}

TEST_F(RetryTest, TimeThatIsExcusedIsNotCounted) {
  const RetryPolicy policy = RetryPolicy::ForReads(gcs_.options.tuning);
  RetryLoop loop(*gcs_.context, limits_, policy);
  gcs_.clock.Advance(policy.budget);
  loop.Excuse(policy.budget);
  EXPECT_OK(loop.Next(absl::UnavailableError("x"), {}));
  gcs_.clock.Advance(policy.budget);
  EXPECT_EQ(CodeOf(loop.Next(absl::UnavailableError("x"), {})), Code::kUnavailable);
}

TEST_F(RetryTest, CancellationDuringABackoffEndsIt) {
  std::stop_source stop;
  limits_.cancellation = stop.get_token();
  RetryLoop loop(*gcs_.context, limits_, RetryPolicy::ForReads(gcs_.options.tuning));
  stop.request_stop();
  EXPECT_EQ(CodeOf(loop.Next(absl::UnavailableError("x"), {})), Code::kCancelled);
}

TEST(RetryAdviceTest, EveryCodeHasItsAdvice) {
  const auto advice = [](Code code) { return AdviceFor(absl::Status(code, "x")); };
  for (const Code code : {Code::kUnavailable, Code::kInternal, Code::kDeadlineExceeded,
                          Code::kUnknown, Code::kAborted, Code::kCancelled}) {
    EXPECT_EQ(advice(code), RetryAdvice::kAgain);
  }
  EXPECT_EQ(advice(Code::kResourceExhausted), RetryAdvice::kAgainPaused);
  EXPECT_EQ(advice(Code::kUnauthenticated), RetryAdvice::kOnceMorePaused);
  for (const Code code :
       {Code::kNotFound, Code::kOutOfRange, Code::kFailedPrecondition, Code::kPermissionDenied,
        Code::kUnimplemented, Code::kDataLoss, Code::kInvalidArgument, Code::kAlreadyExists}) {
    EXPECT_EQ(advice(code), RetryAdvice::kFail);
  }
}

TEST(RetryAdviceTest, OnlyTransientFailuresAreWorthResuming) {
  const auto worth = [](Code code) { return WorthResuming(absl::Status(code, "x")); };
  for (const Code code : {Code::kUnavailable, Code::kInternal, Code::kDeadlineExceeded,
                          Code::kResourceExhausted, Code::kUnauthenticated}) {
    EXPECT_TRUE(worth(code));
  }
  for (const Code code :
       {Code::kCancelled, Code::kAborted, Code::kPermissionDenied, Code::kUnimplemented,
        Code::kDataLoss, Code::kAlreadyExists, Code::kInvalidArgument}) {
    EXPECT_FALSE(worth(code));
  }
}

}  // namespace
}  // namespace peerchunk::test
