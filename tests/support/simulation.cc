#include "tests/support/simulation.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace peerchunk::test {

Simulation::Simulation(uint64_t seed, absl::Time start) : random_(seed), now_(start) {}

Simulation::~Simulation() {
  for (const auto& task : tasks_) {
    if (!task->done && task->thread.joinable() && turns_ > 0) {
      std::fputs("a Simulation ended with tasks that never will\n", stderr);
      std::abort();
    }
  }
  for (const auto& task : tasks_) {
    if (task->thread.joinable()) task->thread.join();
  }
}

void Simulation::Spawn(std::function<void()> body) {
  auto task = std::make_unique<Task>();
  Task* const raw = task.get();
  raw->body = std::move(body);
  raw->thread = std::thread([this, raw] {
    {
      std::unique_lock lock(mutex_);
      raw->turn.wait(lock, [raw] { return raw->has_turn; });
    }
    raw->body();
    raw->body = nullptr;  // What it owns goes while it has the turn.
    std::unique_lock lock(mutex_);
    raw->done = true;
    Progress();
    EndTurn(lock);
  });
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
}

void Simulation::SpawnAt(absl::Time time, std::function<void()> task) {
  Spawn([this, time, task = std::move(task)] {
    SleepUntil(time);
    task();
  });
}

absl::Time Simulation::Now() {
  const std::lock_guard lock(mutex_);
  return now_;
}

void Simulation::Progress() {
  for (const auto& task : tasks_) task->polled = false;
}

Simulation::Task* Simulation::PickNext() {
  std::vector<Task*> able;
  while (true) {
    absl::Time earliest = absl::InfiniteFuture();
    for (const auto& task : tasks_) {
      if (task->done) continue;
      if (!task->waiting || task->deadline <= now_ || !task->polled) {
        able.push_back(task.get());
      } else {
        earliest = std::min(earliest, task->deadline);
      }
    }
    if (!able.empty()) return able[random_() % able.size()];
    if (earliest == absl::InfiniteFuture() || earliest > limit_) return nullptr;
    now_ = earliest;
  }
}

void Simulation::GiveTurn(std::unique_lock<std::mutex>&, Task* task) {
  running_ = task;
  if (task == nullptr) {
    idle_.notify_all();
    return;
  }
  ++turns_;
  task->has_turn = true;
  task->turn.notify_one();
}

void Simulation::EndTurn(std::unique_lock<std::mutex>& lock) {
  running_->has_turn = false;
  GiveTurn(lock, PickNext());
}

bool Simulation::WaitUntil(CondVar& cv, Mutex& mutex, absl::Time deadline) {
  mutex.Unlock();
  bool reached = false;
  {
    std::unique_lock lock(mutex_);
    Task* const self = running_;
    if (self == nullptr) {
      std::fputs("a Simulation's clock was waited on from outside of its tasks\n", stderr);
      std::abort();
    }
    // The same wait again means that the turn was in vain; anything else is progress.
    const bool in_vain = self->waits_on == &cv && self->deadline == deadline && deadline > now_;
    if (!in_vain) Progress();
    self->polled = true;
    self->waits_on = &cv;
    self->deadline = deadline;
    self->waiting = true;
    EndTurn(lock);
    self->turn.wait(lock, [self] { return self->has_turn; });
    self->waiting = false;
    reached = now_ >= deadline;
    if (reached) self->waits_on = nullptr;
  }
  mutex.Lock();
  return !reached;
}

bool Simulation::Run(absl::Time limit) {
  std::unique_lock lock(mutex_);
  limit_ = limit;
  GiveTurn(lock, PickNext());
  idle_.wait(lock, [this] { return running_ == nullptr; });
  const bool ended =
      std::all_of(tasks_.begin(), tasks_.end(), [](const auto& task) { return task->done; });
  if (!ended) return false;
  for (const auto& task : tasks_) {
    lock.unlock();
    task->thread.join();
    lock.lock();
  }
  tasks_.clear();
  return true;
}

}  // namespace peerchunk::test
