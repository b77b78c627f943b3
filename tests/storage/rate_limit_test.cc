#include "storage/rate_limit.h"

#include <thread>

#include <gtest/gtest.h>

#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using test::SimulatedClock;

TEST(RateLimitTest, BytesTakeTheirTime) {
  SimulatedClock clock;
  clock.AdvanceOnWait();
  const absl::Time start = clock.Now();
  RateLimit limit(1000, clock);
  for (int i = 0; i < 10; ++i) ASSERT_OK(limit.Spend(250, absl::InfiniteFuture(), {}));
  EXPECT_EQ(clock.Now() - start, absl::Milliseconds(2500));
}

TEST(RateLimitTest, IdleTimeIsNotSaved) {
  SimulatedClock clock;
  clock.AdvanceOnWait();
  RateLimit limit(1000, clock);
  ASSERT_OK(limit.Spend(1000, absl::InfiniteFuture(), {}));
  clock.Advance(absl::Hours(1));
  const absl::Time start = clock.Now();
  ASSERT_OK(limit.Spend(1000, absl::InfiniteFuture(), {}));
  EXPECT_EQ(clock.Now() - start, absl::Seconds(1));
}

TEST(RateLimitTest, NoLimitTakesNoTime) {
  SimulatedClock clock;  // Would wait for ever.
  RateLimit limit(0, clock);
  EXPECT_OK(limit.Spend(UINT64_MAX, absl::InfiniteFuture(), {}));
  RateLimit slow(1, clock);
  EXPECT_OK(slow.Spend(0, absl::InfiniteFuture(), {}));
}

TEST(RateLimitTest, CallersShareTheRate) {
  SimulatedClock clock;
  RateLimit limit(1000, clock);
  const absl::Time start = clock.Now();
  std::thread first([&] { EXPECT_OK(limit.Spend(1000, absl::InfiniteFuture(), {})); });
  clock.AwaitWaiters(1);
  std::thread second([&] { EXPECT_OK(limit.Spend(1000, absl::InfiniteFuture(), {})); });
  clock.AwaitWaiters(2);
  EXPECT_TRUE(clock.AdvanceToNextDeadline());
  first.join();
  EXPECT_EQ(clock.Now() - start, absl::Seconds(1));
  EXPECT_TRUE(clock.AdvanceToNextDeadline());
  second.join();
  EXPECT_EQ(clock.Now() - start, absl::Seconds(2));
}

TEST(RateLimitTest, DeadlineEndsTheWaitAndGivesTheRestBack) {
  SimulatedClock clock;
  clock.AdvanceOnWait();
  RateLimit limit(1000, clock);
  const absl::Time start = clock.Now();
  EXPECT_EQ(CodeOf(limit.Spend(100'000, start + absl::Seconds(1), {})),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(clock.Now() - start, absl::Seconds(1));
  ASSERT_OK(limit.Spend(1000, absl::InfiniteFuture(), {}));
  EXPECT_EQ(clock.Now() - start, absl::Seconds(2));
}

TEST(RateLimitTest, CancellationEndsTheWaitAndGivesTheRestBack) {
  SimulatedClock clock;
  RateLimit limit(1000, clock);
  std::stop_source stop;
  std::thread waiter([&] {
    EXPECT_EQ(CodeOf(limit.Spend(100'000, absl::InfiniteFuture(), stop.get_token())),
              absl::StatusCode::kCancelled);
  });
  clock.AwaitWaiters(1);
  stop.request_stop();
  waiter.join();
  const absl::Time start = clock.Now();
  clock.AdvanceOnWait();
  ASSERT_OK(limit.Spend(1000, absl::InfiniteFuture(), {}));
  EXPECT_EQ(clock.Now() - start, absl::Seconds(1));
}

}  // namespace
}  // namespace peerchunk
