#include "peerchunk/base/executor.h"

#include <pthread.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

// Holds one thread of a pool until opened.
class Gate {
 public:
  void Open() {
    const MutexLock lock(mutex_);
    open_ = true;
    opened_.NotifyAll();
  }
  void Pass() {
    const MutexLock lock(mutex_);
    while (!open_) opened_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar opened_;
  bool open_ PEERCHUNK_GUARDED_BY(mutex_) = false;
};

TEST(ThreadPoolTest, DemandRunsBeforePrefetchThatWaitedLonger) {
  Gate gate;
  std::vector<std::string> order;  // Written by the one thread only.
  {
    ThreadPool pool("test", 1);
    pool.Run(Priority::kPrefetch, [&] { gate.Pass(); });
    pool.Run(Priority::kPrefetch, [&] { order.emplace_back("prefetch 1"); });
    pool.Run(Priority::kPrefetch, [&] { order.emplace_back("prefetch 2"); });
    pool.Run(Priority::kDemand, [&] { order.emplace_back("demand 1"); });
    pool.Run(Priority::kDemand, [&] { order.emplace_back("demand 2"); });
    gate.Open();
  }
  // The first task may still have been queued when demand came; it orders nothing by itself.
  EXPECT_EQ(order, (std::vector<std::string>{"demand 1", "demand 2", "prefetch 1", "prefetch 2"}));
}

TEST(ThreadPoolTest, DestructorRunsWhatIsQueued) {
  Gate gate;
  std::atomic<int> ran = 0;
  {
    ThreadPool pool("test", 2);
    pool.Run(Priority::kDemand, [&] { gate.Pass(); });
    pool.Run(Priority::kDemand, [&] { gate.Pass(); });
    for (int i = 0; i < 50; ++i) pool.Run(Priority::kPrefetch, [&] { ++ran; });
    gate.Open();
  }
  EXPECT_EQ(ran, 50);
}

TEST(ThreadPoolTest, TaskMayQueueMoreWhileThePoolStops) {
  std::atomic<int> ran = 0;
  {
    ThreadPool pool("test", 1);
    pool.Run(Priority::kDemand, [&] { pool.Run(Priority::kPrefetch, [&] { ++ran; }); });
  }
  EXPECT_EQ(ran, 1);
}

TEST(ThreadPoolTest, TasksRunSideBySide) {
  Gate first;
  Gate second;
  ThreadPool pool("test", 2);
  pool.Run(Priority::kDemand, [&] {
    second.Open();
    first.Pass();
  });
  pool.Run(Priority::kDemand, [&] {
    second.Pass();
    first.Open();
  });
  first.Pass();
}

TEST(ThreadPoolTest, ThreadsCarryTheName) {
  std::string name(16, '\0');
  {
    Gate named;  // The constructor names a thread just after it has started it.
    ThreadPool pool("0123456789abcdef", 1);
    pool.Run(Priority::kDemand, [&] {
      named.Pass();
      pthread_getname_np(pthread_self(), name.data(), name.size());
    });
    named.Open();
  }
  EXPECT_STREQ(name.c_str(), "0123456789a-0");
}

TEST(ThreadPoolTest, WhatATaskOwnsGoesWithIt) {
  auto owned = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = owned;
  ThreadPool pool("test", 1);
  pool.Run(Priority::kDemand, [owned = std::move(owned)] {});
  Gate after;
  pool.Run(Priority::kDemand, [&] { after.Open(); });
  after.Pass();
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace peerchunk
