#include "peer/breaker.h"

#include <gtest/gtest.h>

#include "peer/first_byte_estimate.h"
#include "peer/hedge_tokens.h"

namespace peerchunk {
namespace {

class BreakerTest : public testing::Test {
 protected:
  // Three failures in a row.
  void Open() {
    for (uint32_t i = 0; i < budgets_.breaker_failures; ++i) breaker_.OnFailure(now_, false);
    ASSERT_TRUE(breaker_.Demotes(now_, true));
  }
  bool Probes() { return breaker_.Enter(now_, true); }

  const PeerBudgets budgets_{};
  Counter open_, half_open_, closed_;
  Breaker breaker_{budgets_, {.open = &open_, .half_open = &half_open_, .closed = &closed_}};
  absl::Time now_ = absl::FromUnixSeconds(1000);
};

TEST_F(BreakerTest, OpensAfterFailuresInARow) {
  EXPECT_FALSE(breaker_.OnFailure(now_, false));
  EXPECT_FALSE(breaker_.OnFailure(now_, false));
  breaker_.OnBytes();  // A good read between them starts the count again.
  EXPECT_FALSE(breaker_.OnFailure(now_, false));
  EXPECT_FALSE(breaker_.OnFailure(now_, false));
  EXPECT_FALSE(breaker_.Demotes(now_, true));
  EXPECT_TRUE(breaker_.OnFailure(now_, false));
  EXPECT_TRUE(breaker_.Demotes(now_, true));
  EXPECT_EQ(open_.value(), 1u);
}

TEST_F(BreakerTest, OneReadAtATimeIsTheProbe) {
  Open();
  EXPECT_FALSE(Probes());
  now_ += budgets_.breaker_open;
  EXPECT_FALSE(breaker_.Demotes(now_, true));
  EXPECT_TRUE(Probes());
  EXPECT_TRUE(breaker_.Demotes(now_, true));
  EXPECT_FALSE(Probes());
  EXPECT_EQ(half_open_.value(), 1u);
}

TEST_F(BreakerTest, ProbeMustWantBytes) {
  Open();
  now_ += budgets_.breaker_open;
  EXPECT_TRUE(breaker_.Demotes(now_, false));
  EXPECT_FALSE(breaker_.Enter(now_, false));
}

TEST_F(BreakerTest, GoodBytesCloseIt) {
  Open();
  now_ += budgets_.breaker_open;
  ASSERT_TRUE(Probes());
  breaker_.OnBytes();
  EXPECT_FALSE(breaker_.Demotes(now_, true));
  EXPECT_EQ(closed_.value(), 1u);
  Open();  // And the next time it opens as short as the first time.
  now_ += budgets_.breaker_open;
  EXPECT_TRUE(Probes());
}

TEST_F(BreakerTest, FailedProbesDoubleThePauseUpToAMinute) {
  Open();
  absl::Duration pause = budgets_.breaker_open;
  for (int i = 0; i < 8; ++i) {
    now_ += pause - absl::Milliseconds(1);
    EXPECT_FALSE(Probes());
    now_ += absl::Milliseconds(1);
    ASSERT_TRUE(Probes()) << i;
    EXPECT_TRUE(breaker_.OnFailure(now_, true));
    pause = std::min(pause * 2, absl::Seconds(60));
  }
}

TEST_F(BreakerTest, LastResortsThatFailDoNotProlongIt) {
  Open();
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(breaker_.OnFailure(now_, false));
  now_ += budgets_.breaker_open;
  EXPECT_TRUE(Probes());
}

TEST_F(BreakerTest, ProbeWithoutAVerdictMakesRoomForAnother) {
  Open();
  now_ += budgets_.breaker_open;
  ASSERT_TRUE(Probes());
  breaker_.OnNoVerdict(false);  // Some other read's.
  EXPECT_FALSE(Probes());
  breaker_.OnNoVerdict(true);
  EXPECT_TRUE(Probes());
}

TEST(FirstByteEstimateTest, DelayKeepsToFloorAndCeiling) {
  FirstByteEstimate estimate(absl::Milliseconds(20), absl::Milliseconds(500));
  EXPECT_EQ(estimate.HedgeDelay(), absl::Milliseconds(500));  // Cold: as patient as can be.
  for (int i = 0; i < 1000; ++i) estimate.AddSample(absl::Microseconds(50));
  EXPECT_EQ(estimate.HedgeDelay(), absl::Milliseconds(20));
  for (int i = 0; i < 1000; ++i) estimate.AddSample(absl::Seconds(9));
  EXPECT_EQ(estimate.HedgeDelay(), absl::Milliseconds(500));
}

TEST(FirstByteEstimateTest, SettlesAboveNearlyAllSamples) {
  FirstByteEstimate estimate(absl::Milliseconds(1), absl::Milliseconds(500));
  int above = 0;
  for (int i = 0; i < 4000; ++i) {
    const absl::Duration sample = absl::Milliseconds(10 + i * 7 % 41);  // 10 to 50 ms.
    if (i >= 1000 && sample > estimate.HedgeDelay()) ++above;
    estimate.AddSample(sample);
  }
  EXPECT_LT(above, 60);  // 2 % of 3000.
  EXPECT_LT(estimate.HedgeDelay(), absl::Milliseconds(150));
}

TEST(FirstByteEstimateTest, TimeOutsCountAsSamples) {
  // Were only successes to count, a node that turned slow would be timed out for ever.
  FirstByteEstimate estimate(absl::Milliseconds(20), absl::Milliseconds(500));
  for (int i = 0; i < 500; ++i) estimate.AddSample(absl::Milliseconds(5));
  ASSERT_EQ(estimate.HedgeDelay(), absl::Milliseconds(20));
  int reads = 0;
  while (estimate.HedgeDelay() < absl::Milliseconds(300) && reads < 100) {
    estimate.AddLowerBound(estimate.HedgeDelay() + absl::Milliseconds(1));
    ++reads;
  }
  EXPECT_LT(reads, 100);
  // "At least a little" says nothing against what is known.
  const absl::Duration before = estimate.HedgeDelay();
  estimate.AddLowerBound(absl::Milliseconds(1));
  EXPECT_EQ(estimate.HedgeDelay(), before);
}

TEST(HedgeTokensTest, NeverMoreThanBurstAndShare) {
  HedgeTokens tokens(0.05, 10);
  int taken = 0;
  for (int read = 1; read <= 10'000; ++read) {
    tokens.OnRead();
    while (tokens.Take()) ++taken;
    ASSERT_LE(taken, 10 + 0.05 * read);
  }
  EXPECT_GE(taken, 500);
}

TEST(HedgeTokensTest, NoShareAndNoBurstMeanNone) {
  HedgeTokens tokens(0, 0);
  for (int i = 0; i < 1000; ++i) tokens.OnRead();
  EXPECT_FALSE(tokens.Take());
}

}  // namespace
}  // namespace peerchunk
