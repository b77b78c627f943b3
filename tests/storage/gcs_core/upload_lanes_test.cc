#include "storage/gcs_core/upload_lanes.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/gcs/gcs_fixture.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;

// Lets threads wait for each other.
class Gate {
 public:
  void Open() {
    const MutexLock lock(mutex_);
    open_ = true;
    opened_.NotifyAll();
  }
  void Await() {
    const MutexLock lock(mutex_);
    while (!open_) opened_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar opened_;
  bool open_ PEERCHUNK_GUARDED_BY(mutex_) = false;
};

TEST(UploadLanesTest, NoMoreThanTheLanesWorkAtATime) {
  UploadLanes lanes(3, 0, Clock::Real());
  std::atomic<int> working = 0, most = 0, done = 0;
  std::vector<std::thread> uploads;
  for (int i = 0; i < 4; ++i) {
    uploads.emplace_back([&] {
      std::atomic<int> left = 20;
      lanes.Run(Priority::kPrefetch, 3, {}, [&] {
        if (left.fetch_sub(1) <= 0) return false;
        const int now = ++working;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        std::this_thread::yield();
        --working;
        ++done;
        return true;
      });
    });
  }
  for (std::thread& upload : uploads) upload.join();
  EXPECT_EQ(done, 80);
  EXPECT_LE(most, 3);
}

// Would not end if an upload kept the lane until its last part.
TEST(UploadLanesTest, UploadsTakeTurns) {
  UploadLanes lanes(1, 0, Clock::Real());
  std::atomic<bool> small_done = false;
  Gate begun;
  std::thread large([&] {
    lanes.Run(Priority::kPrefetch, 1, {}, [&] {
      begun.Open();
      std::this_thread::yield();
      return !small_done;
    });
  });
  begun.Await();
  lanes.Run(Priority::kPrefetch, 1, {}, [&] {
    small_done = true;
    return false;
  });
  large.join();
}

TEST(UploadLanesTest, CallerDoesNotWaitForALaneAfterItsCancel) {
  UploadLanes lanes(1, 0, Clock::Real());
  Gate busy, release;
  std::thread other([&] {
    lanes.Run(Priority::kPrefetch, 1, {}, [&] {
      busy.Open();
      release.Await();
      return false;
    });
  });
  busy.Await();
  std::stop_source stop;
  CallLimits limits;
  limits.cancellation = stop.get_token();
  std::thread canceller([&] { stop.request_stop(); });
  bool ran = false;
  lanes.Run(Priority::kPrefetch, 1, limits, [&] {
    ran = true;
    return false;
  });
  EXPECT_FALSE(ran);
  canceller.join();
  release.Open();
  other.join();
}

TEST(UploadLanesTest, CallerDoesNotWaitForALaneBeyondItsDeadline) {
  SimulatedClock clock;
  UploadLanes lanes(1, 0, clock);
  Gate busy, release;
  std::thread other([&] {
    lanes.Run(Priority::kPrefetch, 1, {}, [&] {
      busy.Open();
      release.Await();
      return false;
    });
  });
  busy.Await();
  CallLimits limits;
  limits.deadline = clock.Now() + absl::Seconds(1);
  bool ran = false;
  std::thread late([&] {
    lanes.Run(Priority::kPrefetch, 1, limits, [&] {
      ran = true;
      return false;
    });
  });
  clock.AwaitWaiters(1);
  clock.Advance(absl::Seconds(1));
  late.join();
  EXPECT_FALSE(ran);
  release.Open();
  other.join();
}

TEST(UploadLanesTest, WriteThatFindsNoLaneInTimeSaysSo) {
  GcsFixture gcs;
  gcs.options.clock = &Clock::Real();
  gcs.Restart();
  Gate release;
  std::vector<std::thread> others;
  std::atomic<int> busy = 0;
  for (int i = 0; i < 4; ++i) {
    others.emplace_back([&] {
      gcs.context->lanes->Run(Priority::kDemand, 1, {}, [&] {
        ++busy;
        release.Await();
        return false;
      });
    });
  }
  while (busy < 4) std::this_thread::yield();
  for (const uint64_t size : {3 * kMiB, 9 * kMiB}) {
    std::stop_source stop;
    WriteOptions options;
    options.cancellation = stop.get_token();
    std::thread canceller([&] { stop.request_stop(); });
    EXPECT_EQ(CodeOf(gcs.Put("a/object", SampleBytes(size, 1), options)), Code::kCancelled);
    canceller.join();
  }
  release.Open();
  for (std::thread& other : others) other.join();
  EXPECT_TRUE(gcs.fake->Names().empty());
}

TEST(UploadLanesTest, SmallWriteWaitsForAPlaceUntilItsDeadline) {
  SimulatedClock clock;
  UploadLanes lanes(1, 0, clock);
  for (int i = 0; i < 4; ++i) ASSERT_OK(lanes.EnterSmall({}));
  CallLimits limits;
  limits.deadline = clock.Now() + absl::Seconds(1);
  absl::Status late;
  std::thread waiter([&] { late = lanes.EnterSmall(limits); });
  clock.AwaitWaiters(1);
  clock.Advance(absl::Seconds(1));
  waiter.join();
  EXPECT_EQ(CodeOf(late), Code::kDeadlineExceeded);

  std::stop_source stop;
  CallLimits cancellable;
  cancellable.cancellation = stop.get_token();
  absl::Status cancelled;
  std::thread other([&] { cancelled = lanes.EnterSmall(cancellable); });
  stop.request_stop();
  other.join();
  EXPECT_EQ(CodeOf(cancelled), Code::kCancelled);

  absl::Status entered = absl::UnknownError("not yet");
  std::thread lucky([&] { entered = lanes.EnterSmall({}); });
  lanes.LeaveSmall();
  lucky.join();
  EXPECT_OK(entered);
}

TEST(UploadLanesTest, BytesPerSecondHoldOverAllUploads) {
  GcsFixture gcs;
  gcs.bytes_per_second = kMiB;
  gcs.Restart();
  const absl::Time before = gcs.clock.Now();
  const std::string bytes = SampleBytes(10 * kMiB, 1);
  for (const char* path : {"a/one", "a/two"}) {
    ASSERT_OK(gcs.Put(path, bytes));
  }
  EXPECT_GE(gcs.clock.Now() - before, absl::Seconds(20));
  EXPECT_LT(gcs.clock.Now() - before, absl::Seconds(22));
}

}  // namespace
}  // namespace peerchunk::test
