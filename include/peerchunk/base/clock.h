#pragma once

#include <stop_token>

#include <absl/time/time.h>

#include "peerchunk/base/mutex.h"

namespace peerchunk {

// Time as everything in this library sees it. Deadlines are absl::Time on this clock. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  virtual absl::Time Now() = 0;

  // Waits on `cv` until it is notified or the clock reaches `deadline` (InfiniteFuture: no limit).
  // Wakes spuriously: call in a loop over the condition. False when the deadline was reached.
  virtual bool WaitUntil(CondVar& cv, Mutex& mutex, absl::Time deadline)
      PEERCHUNK_REQUIRES(mutex) = 0;

  // Sleeps until `deadline` or until `cancellation` is requested; false when cancelled.
  bool SleepUntil(absl::Time deadline, const std::stop_token& cancellation = {});

  // The machine's clock. Lives for ever. Steps of the wall clock do not move it.
  static Clock& Real();
};

}  // namespace peerchunk
