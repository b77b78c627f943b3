#pragma once

#include <pthread.h>

#include <string_view>

#include "peerchunk/base/clock.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk::test {

// A virtual clock for the Cloud Storage provider: who waits for time alone (backoff, pause, rate
// limit) gets it at once, while the watchdog, which waits for time or for something better, gets it
// only when it passes: by others' waits, or while the fake stalls.
class FakeGcsClock final : public Clock {
 public:
  absl::Time Now() override { return clock_.Now(); }

  bool WaitUntil(CondVar& cv, Mutex& mutex, absl::Time deadline) override
      PEERCHUNK_REQUIRES(mutex) {
    if (deadline == absl::InfiniteFuture() || InWatchdog()) {
      return clock_.WaitUntil(cv, mutex, deadline);
    }
    mutex.Unlock();
    clock_.AdvanceTo(deadline);
    mutex.Lock();
    return false;
  }

  void Advance(absl::Duration by) { clock_.Advance(by); }

 private:
  static bool InWatchdog() {
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    return std::string_view(name) == "gcs-watchdog";
  }

  SimulatedClock clock_;
};

}  // namespace peerchunk::test
