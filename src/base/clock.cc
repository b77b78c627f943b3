#include "peerchunk/base/clock.h"

#include <chrono>

#include <absl/time/clock.h>

namespace peerchunk {
namespace {

class RealClock final : public Clock {
 public:
  absl::Time Now() override {
    return wall_at_start_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_at_start_);
  }

  bool WaitUntil(CondVar& cv, Mutex& mutex, absl::Time deadline) override
      PEERCHUNK_REQUIRES(mutex) {
    return cv.WaitUntil(mutex, deadline);
  }

 private:
  const absl::Time wall_at_start_ = absl::Now();
  const std::chrono::steady_clock::time_point steady_at_start_ = std::chrono::steady_clock::now();
};

}  // namespace

bool Clock::SleepUntil(absl::Time deadline, const std::stop_token& cancellation) {
  Mutex mutex;
  CondVar woken;
  // Destroyed after the lock is released: its destructor waits for a callback under way.
  const std::stop_callback wake(cancellation, [&] {
    const MutexLock lock(mutex);
    woken.NotifyAll();
  });
  MutexLock lock(mutex);
  while (!cancellation.stop_requested() && Now() < deadline) WaitUntil(woken, mutex, deadline);
  return !cancellation.stop_requested();
}

Clock& Clock::Real() {
  static RealClock& clock = *new RealClock();  // Never destroyed: threads may outlive main().
  return clock;
}

}  // namespace peerchunk
