#pragma once

#include <deque>
#include <functional>
#include <utility>

#include "peerchunk/base/executor.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk::test {

// An executor whose tasks run when a test says so, on the thread that says so. Thread-safe.
class HeldExecutor final : public Executor {
 public:
  void Run(Priority priority, std::function<void()> task) override {
    const MutexLock lock(mutex_);
    queues_[static_cast<size_t>(priority)].push_back(std::move(task));
    queued_.NotifyAll();
  }

  // Runs the task that is first in order of service; false when there is none.
  bool RunNext() {
    std::function<void()> task;
    {
      const MutexLock lock(mutex_);
      auto& queue = queues_[0].empty() ? queues_[1] : queues_[0];
      if (queue.empty()) return false;
      task = std::move(queue.front());
      queue.pop_front();
    }
    task();
    return true;
  }
  void RunAll() {
    while (RunNext()) {
    }
  }

  // Blocks until `count` tasks of this priority are queued.
  void AwaitQueued(Priority priority, size_t count) {
    const MutexLock lock(mutex_);
    while (queues_[static_cast<size_t>(priority)].size() < count) queued_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar queued_;
  std::deque<std::function<void()>> queues_[2] PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk::test
