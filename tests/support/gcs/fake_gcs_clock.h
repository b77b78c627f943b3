#pragma once

#include <pthread.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <string_view>
#include <thread>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk::test {

// A virtual clock for the Cloud Storage provider: who waits for time alone (backoff, pause, rate
// limit) gets it at once, while the watchdog, which waits for time or for something better, gets it
// only when it passes: by others' waits, or while the fake stalls. Time does not run away from a
// watchdog that the machine is slow to run: who lets it pass waits until the watchdog has seen it.
class FakeGcsClock final : public Clock {
 public:
  absl::Time Now() override { return clock_.Now(); }

  bool WaitUntil(CondVar& cv, Mutex& mutex, absl::Time deadline) override
      PEERCHUNK_REQUIRES(mutex) {
    if (InWatchdog()) return Watch(cv, mutex, deadline);
    if (deadline == absl::InfiniteFuture()) return clock_.WaitUntil(cv, mutex, deadline);
    mutex.Unlock();
    AdvanceTo(deadline);
    mutex.Lock();
    return false;
  }

  // Returns when every watchdog has cancelled what is due by then.
  void Advance(absl::Duration by) { AdvanceTo(Now() + by); }

  // For upload lanes, whose waits, too, are for something better than time; they sleep for nothing
  // but a rate limit.
  Clock& of_lanes() { return of_lanes_; }

  size_t watchdogs() {
    const MutexLock lock(mutex_);
    return awake_at_.size();
  }
  // Blocks until so many watchdogs are there, and wait.
  void AwaitWatchdogs(size_t count) {
    const MutexLock lock(mutex_);
    while (awake_at_.size() < count || SomeIsAwake()) changed_.Wait(mutex_);
  }

 private:
  class OfLanes final : public Clock {
   public:
    explicit OfLanes(SimulatedClock& clock) : clock_(clock) {}
    absl::Time Now() override { return clock_.Now(); }
    bool WaitUntil(CondVar& cv, Mutex& mutex, absl::Time deadline) override
        PEERCHUNK_REQUIRES(mutex) {
      return clock_.WaitUntil(cv, mutex, deadline);
    }

   private:
    SimulatedClock& clock_;
  };

  // A watchdog's thread, from its first wait to its end.
  class Presence {
   public:
    explicit Presence(FakeGcsClock& clock) : clock_(clock) {}
    ~Presence() {
      const MutexLock lock(clock_.mutex_);
      clock_.awake_at_.erase(std::this_thread::get_id());
      clock_.changed_.NotifyAll();
    }
    void AwakeAt(absl::Time time) {
      const MutexLock lock(clock_.mutex_);
      clock_.awake_at_[std::this_thread::get_id()] = time;
      clock_.changed_.NotifyAll();
    }

   private:
    FakeGcsClock& clock_;
  };

  static bool InWatchdog() {
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    return std::string_view(name) == "gcs-watchdog";
  }

  // Whenever time passes it looks again: it may have been told of an earlier deadline meanwhile.
  bool Watch(CondVar& cv, Mutex& mutex, absl::Time deadline) PEERCHUNK_REQUIRES(mutex) {
    thread_local Presence presence(*this);
    const absl::Time next = std::min(deadline, Now() + absl::Nanoseconds(1));
    presence.AwakeAt(next);
    clock_.WaitUntil(cv, mutex, next);
    presence.AwakeAt(absl::InfinitePast());
    return Now() < deadline;
  }

  bool SomeIsAwake() PEERCHUNK_REQUIRES(mutex_) {
    const absl::Time now = Now();
    return std::any_of(awake_at_.begin(), awake_at_.end(),
                       [&](const auto& watchdog) { return watchdog.second <= now; });
  }

  void AdvanceTo(absl::Time time) {
    clock_.AdvanceTo(time);
    const MutexLock lock(mutex_);
    while (SomeIsAwake()) changed_.Wait(mutex_);
  }

  SimulatedClock clock_;
  OfLanes of_lanes_{clock_};
  Mutex mutex_;
  CondVar changed_;
  std::map<std::thread::id, absl::Time> awake_at_ PEERCHUNK_GUARDED_BY(mutex_);  // By watchdog.
};

}  // namespace peerchunk::test
