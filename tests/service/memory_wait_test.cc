#include "service/memory_wait.h"

#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

class MemoryWaitTest : public testing::Test {
 protected:
  static constexpr uint64_t kLimit = 1000;

  void Begin(absl::Time until) {
    const MutexLock lock(mutex_);
    wait_.Begin(
        *account_, Priority::kDemand, kLimit,
        [this](ByteBudget::Lease lease) { leases_.push_back(std::move(lease)); }, until,
        [this, kept = kept_](ByteBudget::Ticket ticket) {
          const MutexLock late_lock(mutex_);
          late_.push_back(wait_.LeaveIf(ticket));
          changed_.NotifyAll();
        });
  }
  absl::Time InWeeks() { return clock_.Now() + absl::Hours(24 * 49); }

  test::SimulatedClock clock_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<bool> late_;
  std::vector<ByteBudget::Lease> leases_;
  std::shared_ptr<int> kept_ = std::make_shared<int>(0);  // By alarms that wait.
  const std::shared_ptr<ByteBudget> budget_ =
      std::make_shared<ByteBudget>(ByteBudget::Options{.limit_bytes = kLimit});
  const std::shared_ptr<ByteBudget::Account> account_ = budget_->For("peer");
  std::optional<ByteBudget::Lease> all_ = account_->TryAcquire(Priority::kDemand, kLimit);
  Alarms alarms_{&clock_};
  MemoryWait wait_{&alarms_};
};

TEST_F(MemoryWaitTest, NothingIsKeptOnceTheMemoryHasCome) {
  Begin(InWeeks());
  EXPECT_GT(kept_.use_count(), 1);
  all_ = std::nullopt;
  ASSERT_EQ(leases_.size(), 1u);
  const MutexLock lock(mutex_);
  wait_.Ended();
  EXPECT_EQ(kept_.use_count(), 1);
  EXPECT_FALSE(wait_.Leave());
}

TEST_F(MemoryWaitTest, NothingIsKeptOfOneThatHasLeft) {
  Begin(InWeeks());
  {
    const MutexLock lock(mutex_);
    EXPECT_TRUE(wait_.Leave());
    EXPECT_EQ(kept_.use_count(), 1);
    EXPECT_FALSE(wait_.Leave());
  }
  all_ = std::nullopt;
  EXPECT_TRUE(leases_.empty());
}

TEST_F(MemoryWaitTest, LeavesAtItsTime) {
  Begin(clock_.Now() + absl::Seconds(1));
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(1));
  {
    const MutexLock lock(mutex_);
    while (late_.empty()) changed_.Wait(mutex_);
    EXPECT_TRUE(late_[0]);
  }
  all_ = std::nullopt;
  EXPECT_TRUE(leases_.empty());
}

TEST_F(MemoryWaitTest, AnAlarmThatComesTooLateDoesNotEndTheNextWait) {
  Begin(absl::InfiniteFuture());
  ASSERT_TRUE(wait_.Leave());
  Begin(absl::InfiniteFuture());
  EXPECT_FALSE(wait_.LeaveIf(1)) << "the first one's";
  all_ = std::nullopt;
  EXPECT_EQ(leases_.size(), 1u);
}

// Who is asked to leave when the memory has just come is served.
TEST_F(MemoryWaitTest, WhatHasComeIsNotLeft) {
  Begin(InWeeks());
  all_ = std::nullopt;
  const MutexLock lock(mutex_);
  EXPECT_FALSE(wait_.Leave());
  EXPECT_EQ(leases_.size(), 1u);
  wait_.Ended();
}

}  // namespace
}  // namespace peerchunk
