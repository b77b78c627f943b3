#include "build/task_group.h"

#include <atomic>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

#include "peerchunk/base/mutex.h"
#include "tests/build/held_executor.h"

namespace peerchunk {
namespace {

using test::HeldExecutor;

TEST(TaskGroupTest, RaisedTaskRunsOnceAndFirst) {
  HeldExecutor executor;
  TaskGroup group(&executor);
  std::string order;
  group.Run(Priority::kDemand, [&] { order += 'a'; });
  const auto late = group.Run(Priority::kPrefetch, [&] { order += 'b'; });
  group.Run(Priority::kPrefetch, [&] { order += 'c'; });
  group.Raise(late, Priority::kDemand);
  executor.RunAll();
  EXPECT_EQ(order, "abc");
}

TEST(TaskGroupTest, ClosedWhileQueuedNeverRunsAndFreesWhatItCaptured) {
  HeldExecutor executor;
  auto captured = std::make_shared<int>(1);
  const std::weak_ptr<int> watched = captured;
  {
    TaskGroup group(&executor);
    group.Run(Priority::kDemand, [captured = std::move(captured)] { FAIL(); });
  }
  EXPECT_TRUE(watched.expired());
  executor.RunAll();
}

TEST(TaskGroupTest, RunAfterCloseIsDropped) {
  HeldExecutor executor;
  TaskGroup group(&executor);
  group.Close();
  group.Run(Priority::kDemand, [] { FAIL(); });
  EXPECT_FALSE(executor.RunNext());
  EXPECT_TRUE(group.stop().stop_requested());
}

TEST(TaskGroupTest, CloseWaitsForATaskThatRuns) {
  ThreadPool pool("test", 1);
  std::atomic<bool> begun = false;
  std::atomic<bool> ended = false;
  TaskGroup group(&pool);
  group.Run(Priority::kDemand, [&, stop = group.stop()] {
    Mutex mutex;
    CondVar stopped;
    const std::stop_callback wake(stop, [&] {
      const MutexLock lock(mutex);
      stopped.NotifyAll();
    });
    begun = true;
    begun.notify_all();
    {
      const MutexLock lock(mutex);
      while (!stop.stop_requested()) stopped.Wait(mutex);
    }
    ended = true;
  });
  begun.wait(false);
  group.Close();
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace peerchunk
