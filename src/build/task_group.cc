#include "build/task_group.h"

#include <utility>

#include <absl/container/flat_hash_map.h>

#include "peerchunk/base/mutex.h"

namespace peerchunk {

// Shared with the closures in the executor's queue, which outlive the group.
struct TaskGroup::State {
  Mutex mutex;
  CondVar idle;
  absl::flat_hash_map<TaskId, std::function<void()>> waiting PEERCHUNK_GUARDED_BY(mutex);
  TaskId next_id PEERCHUNK_GUARDED_BY(mutex) = 0;
  size_t running PEERCHUNK_GUARDED_BY(mutex) = 0;
  bool closed PEERCHUNK_GUARDED_BY(mutex) = false;

  void RunTask(TaskId id) {
    std::function<void()> task;
    {
      const MutexLock lock(mutex);
      const auto found = waiting.find(id);
      if (found == waiting.end()) return;
      task = std::move(found->second);
      waiting.erase(found);
      ++running;
    }
    task();
    task = nullptr;  // What it captured goes before Close may return.
    const MutexLock lock(mutex);
    if (--running == 0) idle.NotifyAll();
  }
};

TaskGroup::TaskGroup(Executor* executor) : executor_(executor), state_(std::make_shared<State>()) {}

TaskGroup::TaskId TaskGroup::Run(Priority priority, std::function<void()> task) {
  TaskId id = 0;
  {
    const MutexLock lock(state_->mutex);
    if (state_->closed) return id;
    id = ++state_->next_id;
    state_->waiting.emplace(id, std::move(task));
  }
  Raise(id, priority);
  return id;
}

void TaskGroup::Raise(TaskId task, Priority priority) {
  executor_->Run(priority, [state = state_, task] { state->RunTask(task); });
}

void TaskGroup::Close() {
  stop_.request_stop();
  absl::flat_hash_map<TaskId, std::function<void()>> dropped;
  MutexLock lock(state_->mutex);
  state_->closed = true;
  dropped.swap(state_->waiting);
  while (state_->running > 0) state_->idle.Wait(state_->mutex);
  lock.Unlock();
  dropped.clear();
}

}  // namespace peerchunk
