#include "base/sleepers.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using Woken = Sleepers::Woken;

constexpr auto kNever = absl::InfiniteFuture();

class SleepersTest : public testing::Test {
 protected:
  Woken Sleep(Sleepers::One& one, absl::Time until = kNever) {
    return sleepers_.Sleep(one, until, Clock::Real());
  }

  Sleepers sleepers_;
};

TEST_F(SleepersTest, WhoWasMarkedDoesNotFallAsleep) {
  Sleepers::One one;
  sleepers_.Mark(one, Woken::kToLook);
  EXPECT_EQ(Sleep(one), Woken::kToLook);
  EXPECT_EQ(Sleep(one, Clock::Real().Now()), Woken::kNot) << "it was taken";
  sleepers_.Mark(one, Woken::kReady);
  EXPECT_EQ(sleepers_.Take(one), Woken::kReady);
  EXPECT_EQ(sleepers_.Take(one), Woken::kNot);
}

TEST_F(SleepersTest, ReadyStaysReady) {
  Sleepers::One one;
  sleepers_.Mark(one, Woken::kReady);
  sleepers_.Mark(one, Woken::kToLook);
  EXPECT_EQ(Sleep(one), Woken::kReady);
  sleepers_.Mark(one, Woken::kToLook);
  sleepers_.Mark(one, Woken::kReady);
  EXPECT_EQ(Sleep(one), Woken::kReady);
}

TEST_F(SleepersTest, ASleepEndsInTime) {
  Sleepers::One one;
  EXPECT_EQ(Sleep(one, Clock::Real().Now() + absl::Milliseconds(5)), Woken::kNot);
  EXPECT_EQ(Sleep(one, absl::InfinitePast()), Woken::kNot);
  test::SimulatedClock clock;
  EXPECT_EQ(sleepers_.Sleep(one, clock.Now(), clock), Woken::kNot);
}

// More threads than a mask has bits: those who share one are woken for each other's sake.
TEST_F(SleepersTest, EachIsWokenWhenItIsMarkedAndNotBefore) {
  constexpr size_t kThreads = 40;
  constexpr int kRounds = 50;
  std::vector<std::unique_ptr<Sleepers::One>> ones;
  std::vector<std::atomic<int>> marked(kThreads);
  std::vector<std::atomic<int>> woken(kThreads);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) ones.push_back(std::make_unique<Sleepers::One>());
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 1; round <= kRounds; ++round) {
        EXPECT_EQ(Sleep(*ones[i]), Woken::kReady);
        EXPECT_GE(marked[i], round);
        woken[i] = round;
      }
    });
  }
  // Half of them, then the others, each half with one call.
  for (int round = 1; round <= kRounds; ++round) {
    for (const size_t half : {0, 1}) {
      Sleepers::Mask mask = 0;
      for (size_t i = half; i < kThreads; i += 2) {
        marked[i] = round;
        mask |= sleepers_.Mark(*ones[i], Woken::kReady);
      }
      sleepers_.Wake(mask);
      for (size_t i = half; i < kThreads; i += 2) {
        while (woken[i] < round) std::this_thread::yield();
      }
    }
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace peerchunk
