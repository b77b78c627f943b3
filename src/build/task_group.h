#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "peerchunk/base/executor.h"

namespace peerchunk {

// The tasks of one owner on an executor that it shares with others. Once Close returns, none of
// them runs and what the ones that never began had captured is gone, so tasks may use their owner
// freely: make the group its last member. Thread-safe; Close (and the destructor) not from one of
// the tasks.
class TaskGroup {
 public:
  using TaskId = uint64_t;

  explicit TaskGroup(Executor* executor);  // Borrowed.
  ~TaskGroup() { Close(); }

  // Queues `task`; drops it when the group is closed.
  TaskId Run(Priority priority, std::function<void()> task);
  // Queues a task that has not begun once more; it runs once.
  void Raise(TaskId task, Priority priority);
  // Requests stop(), forgets what has not begun and waits for what has.
  void Close();
  // Tasks watch it: requested by Close.
  std::stop_token stop() const { return stop_.get_token(); }

 private:
  struct State;
  Executor* const executor_;
  const std::shared_ptr<State> state_;
  std::stop_source stop_;
};

}  // namespace peerchunk
