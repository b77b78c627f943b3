#include "service/alarms.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

TEST(AlarmsTest, RunInTheOrderOfTheirTimesAndNotOnceCancelled) {
  test::SimulatedClock clock;
  Alarms alarms(&clock);
  Mutex mutex;
  CondVar changed;
  std::string order;
  const auto note = [&](char what) {
    return [&, what] {
      const MutexLock lock(mutex);
      order += what;
      changed.NotifyAll();
    };
  };
  const absl::Time start = clock.Now();
  alarms.At(start + absl::Seconds(3), note('c'));
  alarms.At(start + absl::Seconds(1), note('a'));
  const auto never = alarms.At(start + absl::Seconds(2), note('x'));
  alarms.At(start + absl::Seconds(2), note('b'));
  EXPECT_TRUE(alarms.Cancel(never));
  EXPECT_FALSE(alarms.Cancel(never));
  clock.AwaitWaiters(1);
  EXPECT_EQ(order, "");
  clock.Advance(absl::Seconds(3));
  const MutexLock lock(mutex);
  while (order.size() < 3) changed.Wait(mutex);
  EXPECT_EQ(order, "abc");
}

TEST(AlarmsTest, WhatHasNotComeIsDroppedAtTheEnd) {
  test::SimulatedClock clock;
  bool ran = false;
  auto kept = std::make_shared<int>(0);
  {
    Alarms alarms(&clock);
    alarms.At(clock.Now() + absl::Seconds(1), [&ran, kept] { ran = true; });
  }
  EXPECT_FALSE(ran);
  EXPECT_EQ(kept.use_count(), 1);
}

}  // namespace
}  // namespace peerchunk
