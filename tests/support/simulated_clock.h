#pragma once

#include <cstddef>
#include <vector>

#include <absl/time/time.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk::test {

// A clock that moves only when told. Owned by a test, outlives everything that waits on it.
// Thread-safe. A test of waiting code goes: start it in a thread, AwaitWaiters(1), Advance(...).
class SimulatedClock final : public Clock {
 public:
  explicit SimulatedClock(absl::Time start = absl::FromUnixSeconds(1'700'000'000)) : now_(start) {}

  absl::Time Now() override;
  bool WaitUntil(CondVar& cv, Mutex& mutex, absl::Time deadline) override PEERCHUNK_REQUIRES(mutex);

  // Moves the time and wakes every wait whose deadline it reaches. Time does not go back.
  void Advance(absl::Duration by);
  void AdvanceTo(absl::Time time);

  // Every wait with a finite deadline moves the clock there at once instead of waiting: for code
  // that waits in one thread for nothing but time (backoff, a rate limit).
  void AdvanceOnWait();

  // Blocks until at least `count` threads are in WaitUntil with a finite deadline yet to come.
  void AwaitWaiters(size_t count);
  // Advances to the earliest deadline someone waits for; false when there is none.
  bool AdvanceToNextDeadline();

 private:
  struct Waiter {
    CondVar* cv;
    Mutex* mutex;
    absl::Time deadline;
    int wakers =
        0;  // Threads about to lock `mutex` to wake this; the waiter stays until they have.
  };

  Mutex mutex_;
  CondVar changed_;  // waiters_ or a Waiter's wakers.
  absl::Time now_ PEERCHUNK_GUARDED_BY(mutex_);
  bool advance_on_wait_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::vector<Waiter*> waiters_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk::test
