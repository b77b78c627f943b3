#include "base/adaptive_polling.h"

#include <gtest/gtest.h>

#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

class AdaptivePollingTest : public testing::Test {
 protected:
  void Wait(absl::Duration each, int times) {
    for (int i = 0; i < times; ++i) polling_.Waited(each);
  }
  bool Polls() const { return polling_.Patience() > absl::ZeroDuration(); }

  AdaptivePolling polling_{/*cores=*/2};
};

TEST(AdaptivePollingOnOneCoreTest, NothingIsPolled) {
  for (const unsigned cores : {0u, 1u}) {
    AdaptivePolling polling(cores);
    EXPECT_EQ(polling.Patience(), absl::ZeroDuration());
    for (int i = 0; i < 100; ++i) polling.Waited(absl::Microseconds(1));
    EXPECT_EQ(polling.Patience(), absl::ZeroDuration());
  }
}

TEST_F(AdaptivePollingTest, ShortWaitsArePolled) {
  EXPECT_TRUE(Polls());
  Wait(absl::Microseconds(50), 100);
  EXPECT_TRUE(Polls());
}

TEST_F(AdaptivePollingTest, LongWaitsAreNot) {
  Wait(absl::Milliseconds(5), 3);
  EXPECT_FALSE(Polls());
  Wait(absl::Microseconds(300), 100);
  EXPECT_FALSE(Polls());
}

// Else a reader that comes back after an hour would be served slowly for its first hundred reads.
TEST_F(AdaptivePollingTest, OnePauseIsForgottenAfterAFewShortWaits) {
  Wait(absl::Microseconds(50), 100);
  Wait(absl::Hours(1), 1);
  Wait(absl::Microseconds(50), 5);
  EXPECT_TRUE(Polls());
}

TEST_F(AdaptivePollingTest, ManyPausesNeedMore) {
  Wait(absl::Hours(1), 100);
  Wait(absl::Microseconds(50), 10);
  EXPECT_FALSE(Polls());
  Wait(absl::Microseconds(50), 20);
  EXPECT_TRUE(Polls());
}

class OneWaitTest : public testing::Test {
 protected:
  static constexpr absl::Duration kLook = absl::Microseconds(3);

  // Looks in vain, as long as it may; each look takes its time, and each offer of the core `away`.
  int LookInVain(absl::Duration away, absl::Time until = absl::InfiniteFuture()) {
    const auto offer = [&] { clock_.Advance(away); };
    AdaptivePolling::Wait wait(polling_, clock_, until, offer);
    int looks = 0;
    while (wait.LooksAgain()) {
      ++looks;
      clock_.Advance(kLook);
    }
    return looks;
  }
  bool Polls() const { return polling_.Patience() > absl::ZeroDuration(); }

  test::SimulatedClock clock_;
  AdaptivePolling polling_{/*cores=*/2};
};

TEST_F(OneWaitTest, TheTimeToLookForEnds) {
  EXPECT_EQ(LookInVain(absl::ZeroDuration()), 34) << "100 us in steps of 3";
  EXPECT_EQ(LookInVain(absl::ZeroDuration(), clock_.Now() + absl::Microseconds(10)), 4);
  EXPECT_EQ(LookInVain(absl::ZeroDuration(), clock_.Now()), 0) << "it is late already";
}

// Who has the core may be the one who is waited for: on one core with all others asleep each of
// them would wait for the one before, and none of them would ever look.
TEST_F(OneWaitTest, WhatOthersDoMeanwhileIsNotTheWaits) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_GE(LookInVain(absl::Microseconds(14)), 34);
    ASSERT_TRUE(Polls());
  }
}

// A guest that computes gives the core back when its slice is over, but makes way for who wakes up.
TEST_F(OneWaitTest, WhereOthersKeepTheCoreNobodyPolls) {
  EXPECT_EQ(LookInVain(absl::Milliseconds(3)), 2) << "one more look";
  EXPECT_FALSE(Polls());
  EXPECT_EQ(LookInVain(absl::Milliseconds(3)), 0);
}

// Each offer that is taken by who computes costs a wait his whole turn.
TEST_F(OneWaitTest, WhoComputesIsOfferedTheCoreSeldomAndMoreSeldom) {
  constexpr absl::Duration kTurn = absl::Milliseconds(4);
  int taken = 0;
  for (int wait = 0; wait < 4000; ++wait) {
    const absl::Time before = clock_.Now();
    LookInVain(kTurn);
    if (clock_.Now() - before >= kTurn) ++taken;
    clock_.Advance(absl::Microseconds(30));
  }
  EXPECT_GE(taken, 8);
  EXPECT_LE(taken, 20) << "one in 200: 20 us a wait";
}

// 128 readers that were woken together.
TEST_F(OneWaitTest, ManyWhoHaveTheCoreForShortAreNoneWhoComputes) {
  for (int wait = 0; wait < 100; ++wait) {
    EXPECT_EQ(LookInVain(absl::Milliseconds(1)), 2);
    int without = 0;
    while (LookInVain(absl::ZeroDuration()) == 0) ++without;
    EXPECT_LE(without, 3);
    for (int quick = 0; quick < 20; ++quick) EXPECT_GT(LookInVain(absl::ZeroDuration()), 0);
  }
}

TEST_F(OneWaitTest, WhenHeHasGoneItPollsAsBefore) {
  for (int wait = 0; wait < 4000; ++wait) LookInVain(absl::Milliseconds(4));
  int without = 0;
  while (LookInVain(absl::ZeroDuration()) == 0) ++without;
  EXPECT_LE(without, 512);
  EXPECT_TRUE(Polls());
  for (int wait = 0; wait < 10; ++wait) EXPECT_GT(LookInVain(absl::ZeroDuration()), 0);
  // And forgets how long he had been there.
  LookInVain(absl::Milliseconds(4));
  without = 0;
  while (LookInVain(absl::ZeroDuration()) == 0) ++without;
  EXPECT_LE(without, 10);
}

TEST_F(OneWaitTest, ManyShortWhilesAreALongOne) {
  EXPECT_EQ(LookInVain(absl::Microseconds(100)), 7);
}

}  // namespace
}  // namespace peerchunk
