#include "tests/support/simulated_clock.h"

#include <algorithm>

namespace peerchunk::test {

absl::Time SimulatedClock::Now() {
  const MutexLock lock(mutex_);
  return now_;
}

bool SimulatedClock::WaitUntil(CondVar& cv, Mutex& mutex, absl::Time deadline) {
  Waiter waiter{&cv, &mutex, deadline};
  {
    MutexLock lock(mutex_);
    if (deadline <= now_) return false;
    if (advance_on_wait_ && deadline != absl::InfiniteFuture()) {
      lock.Unlock();
      mutex.Unlock();  // Others that are due by then may wait under the same lock.
      AdvanceTo(deadline);
      mutex.Lock();
      return false;
    }
    waiters_.push_back(&waiter);
    changed_.NotifyAll();
  }
  cv.Wait(mutex);
  while (true) {
    {
      const MutexLock lock(mutex_);
      if (waiter.wakers == 0) {
        waiters_.erase(std::find(waiters_.begin(), waiters_.end(), &waiter));
        return now_ < deadline;
      }
    }
    // A waker needs `mutex` to be done with `cv`, which may be gone as soon as this returns.
    mutex.Unlock();
    {
      const MutexLock lock(mutex_);
      while (waiter.wakers != 0) changed_.Wait(mutex_);
    }
    mutex.Lock();
  }
}

void SimulatedClock::Advance(absl::Duration by) { AdvanceTo(Now() + by); }

void SimulatedClock::AdvanceTo(absl::Time time) {
  std::vector<Waiter*> due;
  {
    const MutexLock lock(mutex_);
    now_ = std::max(now_, time);
    for (Waiter* const waiter : waiters_) {
      if (waiter->deadline > now_) continue;
      ++waiter->wakers;
      due.push_back(waiter);
    }
  }
  for (Waiter* const waiter : due) {
    {
      // Under the waiter's lock: it is either inside Wait() or past it, never in between.
      const MutexLock lock(*waiter->mutex);
      waiter->cv->NotifyAll();
    }
    const MutexLock lock(mutex_);
    --waiter->wakers;
    changed_.NotifyAll();
  }
}

void SimulatedClock::AdvanceOnWait() {
  const MutexLock lock(mutex_);
  advance_on_wait_ = true;
}

void SimulatedClock::AwaitWaiters(size_t count) {
  const MutexLock lock(mutex_);
  while (true) {
    size_t waiting = 0;
    for (const Waiter* const waiter : waiters_) {
      if (waiter->deadline > now_ && waiter->deadline != absl::InfiniteFuture()) ++waiting;
    }
    if (waiting >= count) return;
    changed_.Wait(mutex_);
  }
}

bool SimulatedClock::AdvanceToNextDeadline() {
  absl::Time earliest = absl::InfiniteFuture();
  {
    const MutexLock lock(mutex_);
    for (const Waiter* const waiter : waiters_) {
      // One that is due was woken already and is only on its way out.
      if (waiter->deadline > now_) earliest = std::min(earliest, waiter->deadline);
    }
  }
  if (earliest == absl::InfiniteFuture()) return false;
  AdvanceTo(earliest);
  return true;
}

}  // namespace peerchunk::test
