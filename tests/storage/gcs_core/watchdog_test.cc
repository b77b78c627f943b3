#include "storage/gcs_core/watchdog.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "storage/gcs_core/channel_pool.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk::test {
namespace {

// A call that only counts how often it is cancelled.
class CountingCall final : public GcsCall {
 public:
  void Cancel() override {
    const MutexLock lock(mutex_);
    ++cancelled_;
    changed_.NotifyAll();
  }
  void AwaitCancel() {
    const MutexLock lock(mutex_);
    while (cancelled_ == 0) changed_.Wait(mutex_);
  }
  int cancelled() {
    const MutexLock lock(mutex_);
    return cancelled_;
  }

  absl::StatusOr<GcsObject> GetObject(const std::string&) override { return Nothing(); }
  std::unique_ptr<GcsReadStream> ReadObject(const GcsReadRequest&) override { return nullptr; }
  absl::StatusOr<std::string> StartResumableWrite(const GcsWriteSpec&) override {
    return Nothing();
  }
  absl::StatusOr<GcsWriteStatus> QueryWriteStatus(const std::string&) override { return Nothing(); }
  absl::Status CancelResumableWrite(const std::string&) override { return Nothing(); }
  std::unique_ptr<GcsWriteStream> WriteObject() override { return nullptr; }
  absl::StatusOr<GcsObject> ComposeObject(const GcsComposeRequest&) override { return Nothing(); }
  absl::Status DeleteObject(const std::string&, int64_t) override { return Nothing(); }
  absl::StatusOr<GcsListPage> ListObjects(const GcsListRequest&) override { return Nothing(); }

 private:
  static absl::Status Nothing() { return absl::UnimplementedError("a call for the watchdog only"); }

  Mutex mutex_;
  CondVar changed_;
  int cancelled_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
};

class CountingStub final : public GcsStub {
 public:
  std::shared_ptr<GcsCall> NewCall(const GcsCallOptions&) override {
    return std::make_shared<CountingCall>();
  }
};

class WatchdogTest : public testing::Test {
 protected:
  SimulatedClock clock_;
  Watchdog watchdog_{clock_};
};

TEST_F(WatchdogTest, CallIsCancelledAtItsDeadline) {
  const auto call = std::make_shared<CountingCall>();
  Watchdog::Watch watch(watchdog_, call);
  watch.Expect(clock_.Now() + absl::Seconds(3));
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(3) - absl::Nanoseconds(1));
  EXPECT_FALSE(watch.fired());
  clock_.Advance(absl::Nanoseconds(1));
  call->AwaitCancel();
  EXPECT_TRUE(watch.fired());
}

TEST_F(WatchdogTest, CallAtRestIsLeftAlone) {
  const auto resting = std::make_shared<CountingCall>();
  const auto late = std::make_shared<CountingCall>();
  Watchdog::Watch first(watchdog_, resting);
  Watchdog::Watch second(watchdog_, late);
  first.Expect(clock_.Now() + absl::Seconds(3));
  first.Rest();
  second.Expect(clock_.Now() + absl::Seconds(4));
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(10));
  late->AwaitCancel();
  EXPECT_EQ(resting->cancelled(), 0);
  EXPECT_FALSE(first.fired());
}

TEST_F(WatchdogTest, LaterDeadlineReplacesAnEarlierOne) {
  const auto call = std::make_shared<CountingCall>();
  const auto other = std::make_shared<CountingCall>();
  Watchdog::Watch watch(watchdog_, call);
  Watchdog::Watch between(watchdog_, other);
  watch.Expect(clock_.Now() + absl::Seconds(3));
  watch.Expect(clock_.Now() + absl::Seconds(10));
  between.Expect(clock_.Now() + absl::Seconds(5));
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(5));
  other->AwaitCancel();
  EXPECT_EQ(call->cancelled(), 0);
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(5));
  call->AwaitCancel();
}

TEST_F(WatchdogTest, EarlierDeadlineReplacesALaterOne) {
  const auto call = std::make_shared<CountingCall>();
  Watchdog::Watch watch(watchdog_, call);
  watch.Expect(clock_.Now() + absl::Hours(1));
  watch.Rest();
  watch.Expect(clock_.Now() + absl::Seconds(1));
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(1));
  call->AwaitCancel();
}

TEST_F(WatchdogTest, DestroyedWatchIsForgotten) {
  const auto call = std::make_shared<CountingCall>();
  const auto other = std::make_shared<CountingCall>();
  {
    Watchdog::Watch watch(watchdog_, call);
    watch.Expect(clock_.Now() + absl::Seconds(1));
    clock_.AwaitWaiters(1);
  }
  EXPECT_EQ(call.use_count(), 1) << "the watchdog must not keep a call while it waits";
  Watchdog::Watch watch(watchdog_, other);
  watch.Expect(clock_.Now() + absl::Seconds(2));
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(5));
  other->AwaitCancel();
  EXPECT_EQ(call->cancelled(), 0);
}

// Streams that move their deadlines while time runs: none that keeps moving is cancelled late or
// twice, each that stops moving is cancelled. What the lock-free part could get wrong is a lost
// deadline, and then this test does not end.
TEST_F(WatchdogTest, NoDeadlineIsLostWhileTimeRuns) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 300;
  std::atomic<int> running = kThreads;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        const auto call = std::make_shared<CountingCall>();
        Watchdog::Watch watch(watchdog_, call);
        for (int i = 0; i < 20; ++i) {
          watch.Expect(clock_.Now() + absl::Milliseconds(5 + (t + i) % 7));
          if (i % 3 == 0) watch.Rest();
        }
        if (round % 2 == 0) {
          watch.Expect(clock_.Now() + absl::Milliseconds(3));
          call->AwaitCancel();
          EXPECT_TRUE(watch.fired());
          EXPECT_EQ(call->cancelled(), 1);
        }
      }
      --running;
    });
  }
  while (running > 0) {
    clock_.Advance(absl::Milliseconds(1));
    std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
}

class ChannelPoolTest : public testing::Test {
 protected:
  static std::vector<std::unique_ptr<GcsStub>> Stubs(size_t count) {
    std::vector<std::unique_ptr<GcsStub>> stubs;
    for (size_t i = 0; i < count; ++i) stubs.push_back(std::make_unique<CountingStub>());
    return stubs;
  }
  SimulatedClock clock_;
  ChannelPool pool_{Stubs(3), clock_};
};

TEST_F(ChannelPoolTest, CallsSpreadOverAllChannels) {
  std::vector<std::unique_ptr<ChannelPool::Lease>> leases;
  std::vector<int> taken(3);
  for (int i = 0; i < 9; ++i) {
    leases.push_back(std::make_unique<ChannelPool::Lease>(pool_, pool_.Pick({})));
    ++taken[leases.back()->index()];
  }
  EXPECT_EQ(taken, (std::vector<int>{3, 3, 3}));
}

TEST_F(ChannelPoolTest, BusyChannelIsPassedOver) {
  const ChannelPool::Lease a(pool_, 0), b(pool_, 0), c(pool_, 2);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(pool_.Pick({}), 1u);
}

TEST_F(ChannelPoolTest, RetryAvoidsTheChannelThatFailed) {
  const ChannelPool::Lease a(pool_, 1), b(pool_, 2);
  EXPECT_NE(pool_.Pick(0), 0u);
  ChannelPool single(Stubs(1), clock_);
  EXPECT_EQ(single.Pick(0), 0u) << "there is no other";
}

TEST_F(ChannelPoolTest, SuspicionGrowsWithFailuresAndEndsWithSuccess) {
  const auto picked = [&](size_t index) {
    for (int i = 0; i < 6; ++i) {
      if (pool_.Pick({}) == index) return true;
    }
    return false;
  };
  {
    ChannelPool::Lease lease(pool_, 1);
    lease.Failed();
  }
  EXPECT_FALSE(picked(1));
  clock_.Advance(absl::Seconds(5));
  EXPECT_TRUE(picked(1));
  {
    ChannelPool::Lease lease(pool_, 1);
    lease.Failed();
  }
  clock_.Advance(absl::Seconds(9));
  EXPECT_FALSE(picked(1));
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(picked(1));
  {
    ChannelPool::Lease lease(pool_, 1);
    lease.Failed();
    lease.Worked();
  }
  EXPECT_TRUE(picked(1));
}

TEST_F(ChannelPoolTest, AllUnderSuspicionStillServe) {
  for (size_t i = 0; i < 3; ++i) {
    ChannelPool::Lease lease(pool_, i);
    lease.Failed();
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_EQ(pool_.Pick({}), 0u) << "the one that may be tried again first";
}

}  // namespace
}  // namespace peerchunk::test
