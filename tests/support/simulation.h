#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/executor.h"

namespace peerchunk::test {

// Runs blocking code deterministically: tasks on threads of their own, of which exactly one runs at
// a time, on a clock that moves only when nobody can go on. Which one goes on is drawn from the
// seed, so a run replays exactly and every seed is another interleaving. The code under test may
// block in nothing but this clock's waits (and briefly in mutexes).
//
// A wait is woken when its deadline is reached, and spuriously once after anybody else made
// progress: a notification needs no attention, since whoever gave it made progress.
class Simulation final : public Clock {
 public:
  explicit Simulation(uint64_t seed, absl::Time start = absl::FromUnixSeconds(1'700'000'000));
  ~Simulation() override;

  // Adds a task. From outside before Run, or from a task.
  void Spawn(std::function<void()> task);
  // Adds a task that starts at a time.
  void SpawnAt(absl::Time time, std::function<void()> task);
  // Each Run() of it spawns a task.
  Executor& executor() { return executor_; }

  // Runs until every task has ended. False when all wait for ever, or the clock passed `limit`; the
  // process cannot go on cleanly then.
  bool Run(absl::Time limit);

  absl::Time Now() override;
  bool WaitUntil(CondVar& cv, Mutex& mutex, absl::Time deadline) override PEERCHUNK_REQUIRES(mutex);

  // How often a task was given the turn: a measure of a run, equal in every replay.
  uint64_t turns() const { return turns_; }

 private:
  struct Task {
    std::function<void()> body;
    std::thread thread;
    std::condition_variable turn;
    bool has_turn = false;
    bool done = false;
    bool waiting = false;
    bool polled = false;  // Woken since the last progress, in vain.
    const void* waits_on = nullptr;
    absl::Time deadline = absl::InfinitePast();
  };
  class SpawningExecutor final : public Executor {
   public:
    explicit SpawningExecutor(Simulation& simulation) : simulation_(simulation) {}
    void Run(Priority, std::function<void()> task) override { simulation_.Spawn(std::move(task)); }

   private:
    Simulation& simulation_;
  };

  Task* PickNext();
  void Progress();
  void GiveTurn(std::unique_lock<std::mutex>& lock, Task* task);
  void EndTurn(std::unique_lock<std::mutex>& lock);

  std::mt19937_64 random_;
  SpawningExecutor executor_{*this};
  std::mutex mutex_;  // Of everything below. Plain: its waits are the turns themselves.
  std::condition_variable idle_;
  absl::Time now_;
  absl::Time limit_ = absl::InfiniteFuture();
  std::vector<std::unique_ptr<Task>> tasks_;
  Task* running_ = nullptr;
  uint64_t turns_ = 0;
};

}  // namespace peerchunk::test
