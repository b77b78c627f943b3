#include "peerchunk/base/clock.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using test::SimulatedClock;

TEST(RealClockTest, TimeDoesNotGoBack) {
  Clock& clock = Clock::Real();
  absl::Time last = clock.Now();
  for (int i = 0; i < 1000; ++i) {
    const absl::Time now = clock.Now();
    EXPECT_LE(last, now);
    last = now;
  }
}

TEST(RealClockTest, PassedDeadlineEndsTheWaitAtOnce) {
  Mutex mutex;
  CondVar cv;
  const MutexLock lock(mutex);
  EXPECT_FALSE(Clock::Real().WaitUntil(cv, mutex, absl::InfinitePast()));
  EXPECT_FALSE(Clock::Real().WaitUntil(cv, mutex, Clock::Real().Now()));
  EXPECT_FALSE(cv.WaitUntil(mutex, absl::InfinitePast()));
}

TEST(RealClockTest, WaitEndsNotBeforeItsDeadline) {
  Mutex mutex;
  CondVar cv;
  const absl::Time deadline = Clock::Real().Now() + absl::Milliseconds(2);
  const MutexLock lock(mutex);
  while (Clock::Real().WaitUntil(cv, mutex, deadline)) {
  }
  EXPECT_GE(Clock::Real().Now(), deadline);
}

TEST(RealClockTest, NotificationEndsAWaitWithoutOrWithADistantDeadline) {
  for (const absl::Time deadline : {absl::InfiniteFuture(), absl::FromUnixSeconds(INT64_MAX / 4),
                                    Clock::Real().Now() + absl::Hours(100)}) {
    Mutex mutex;
    CondVar cv;
    bool done = false;
    std::thread notifier([&] {
      const MutexLock lock(mutex);
      done = true;
      cv.NotifyOne();
    });
    {
      const MutexLock lock(mutex);
      while (!done) EXPECT_TRUE(Clock::Real().WaitUntil(cv, mutex, deadline));
    }
    notifier.join();
  }
}

TEST(ClockTest, SleepEndsAtItsDeadline) {
  SimulatedClock clock;
  const absl::Time start = clock.Now();
  std::atomic<bool> slept = false;
  std::thread sleeper([&] { slept = clock.SleepUntil(start + absl::Seconds(10)); });
  clock.AwaitWaiters(1);
  clock.Advance(absl::Seconds(9));
  EXPECT_FALSE(slept);
  clock.Advance(absl::Seconds(1));
  sleeper.join();
  EXPECT_TRUE(slept);
}

TEST(ClockTest, CancellationEndsASleep) {
  SimulatedClock clock;
  std::stop_source stop;
  std::atomic<bool> slept = true;
  std::thread sleeper(
      [&] { slept = clock.SleepUntil(clock.Now() + absl::Seconds(10), stop.get_token()); });
  clock.AwaitWaiters(1);
  stop.request_stop();
  sleeper.join();
  EXPECT_FALSE(slept);
  EXPECT_FALSE(clock.SleepUntil(absl::InfiniteFuture(), stop.get_token()));
}

TEST(ClockTest, SleepWithoutEndIsCancelled) {
  std::stop_source stop;
  std::thread canceller([&] { stop.request_stop(); });
  EXPECT_FALSE(Clock::Real().SleepUntil(absl::InfiniteFuture(), stop.get_token()));
  canceller.join();
}

TEST(SimulatedClockTest, WaitersWakeInAnyNumberWhenTheirTimeComes) {
  SimulatedClock clock;
  const absl::Time start = clock.Now();
  std::atomic<int> woken = 0;
  std::vector<std::thread> sleepers;
  for (int i = 1; i <= 4; ++i) {
    sleepers.emplace_back([&clock, &woken, start, i] {
      clock.SleepUntil(start + absl::Seconds(i));
      ++woken;
    });
  }
  clock.AwaitWaiters(4);
  clock.AdvanceTo(start + absl::Seconds(2));
  sleepers[0].join();
  sleepers[1].join();
  EXPECT_EQ(woken, 2);
  EXPECT_TRUE(clock.AdvanceToNextDeadline());
  sleepers[2].join();
  EXPECT_EQ(clock.Now(), start + absl::Seconds(3));
  EXPECT_TRUE(clock.AdvanceToNextDeadline());
  sleepers[3].join();
  EXPECT_FALSE(clock.AdvanceToNextDeadline());
}

TEST(SimulatedClockTest, AdvanceOnWaitSleepsInNoTime) {
  SimulatedClock clock;
  clock.AdvanceOnWait();
  const absl::Time start = clock.Now();
  EXPECT_TRUE(clock.SleepUntil(start + absl::Hours(5)));
  EXPECT_EQ(clock.Now(), start + absl::Hours(5));
}

TEST(SimulatedClockTest, TimeDoesNotGoBack) {
  SimulatedClock clock;
  const absl::Time start = clock.Now();
  clock.AdvanceTo(start - absl::Seconds(1));
  EXPECT_EQ(clock.Now(), start);
}

// The waiter's condition variable dies as soon as its wait ends; an Advance under way must be done
// with it by then. A sanitizer sees it when not.
TEST(SimulatedClockTest, WaitersMayComeAndGoWhileTimeAdvances) {
  SimulatedClock clock;
  std::atomic<int> running = 3;
  std::vector<std::thread> sleepers;
  for (int i = 0; i < 3; ++i) {
    sleepers.emplace_back([&clock, &running] {
      for (int n = 0; n < 200; ++n) clock.SleepUntil(clock.Now() + absl::Milliseconds(n % 7));
      --running;
    });
  }
  while (running > 0) {
    clock.Advance(absl::Milliseconds(3));
    std::this_thread::yield();
  }
  for (std::thread& sleeper : sleepers) sleeper.join();
}

}  // namespace
}  // namespace peerchunk
