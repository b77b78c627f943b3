#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "peerchunk/base/mutex.h"

namespace peerchunk {

// Order of service where work queues up: every waiting demand task runs before any prefetch task.
enum class Priority : uint8_t { kDemand = 0, kPrefetch = 1 };

// Runs closures some time later on some thread. Thread-safe.
class Executor {
 public:
  virtual ~Executor() = default;
  // Never runs `task` inside the call; a task may block.
  virtual void Run(Priority priority, std::function<void()> task) = 0;
};

// Two executors as one: prefetch tasks, which may block for long, cannot take the threads that
// demand tasks need. Borrows both. Thread-safe.
class LaneExecutor final : public Executor {
 public:
  LaneExecutor(Executor* demand, Executor* prefetch) : demand_(demand), prefetch_(prefetch) {}

  void Run(Priority priority, std::function<void()> task) override {
    (priority == Priority::kDemand ? demand_ : prefetch_)->Run(priority, std::move(task));
  }

 private:
  Executor* const demand_;
  Executor* const prefetch_;
};

// A fixed number of named threads over one queue in two lanes. The destructor runs what is queued,
// then joins. Tasks must not destroy the pool.
class ThreadPool final : public Executor {
 public:
  // How long the scheduler is asked to let a thread run at a time. kShort: where somebody waits for
  // what it does; it then has the core soon where others compute (base/short_turns.h).
  enum class Turns : uint8_t { kUsual, kShort };

  // `name` (at most 11 characters) shows in thread lists. `threads` >= 1.
  ThreadPool(const std::string& name, size_t threads, Turns turns = Turns::kUsual);
  ~ThreadPool() override;

  void Run(Priority priority, std::function<void()> task) override;

 private:
  void Work();

  const Turns turns_;
  Mutex mutex_;
  CondVar ready_;
  std::deque<std::function<void()>> queues_[2] PEERCHUNK_GUARDED_BY(mutex_);
  bool stopping_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // Written by the constructor only.
};

}  // namespace peerchunk
