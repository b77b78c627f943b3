#include "peerchunk/base/mutex.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "peerchunk/base/clock.h"

namespace peerchunk {

Mutex::Mutex() {
  // std::mutex has nothing to choose its kind by; this is what its handle is there for.
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
  pthread_mutex_init(mutex_.native_handle(), &attributes);
  pthread_mutexattr_destroy(&attributes);
}

bool CondVar::WaitUntil(Mutex& mutex, absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) {
    Wait(mutex);
    return true;
  }
  Clock& clock = Clock::Real();
  // The steady clock decides, so a step of the wall clock neither shortens nor prolongs the wait;
  // an hour at a time (a spurious wake to the caller), so that no distant deadline overflows.
  const absl::Duration rest = std::min(deadline - clock.Now(), absl::Hours(1));
  if (rest <= absl::ZeroDuration()) return false;
  std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
  const std::cv_status result = cv_.wait_until(
      lock, std::chrono::steady_clock::now() +
                std::chrono::nanoseconds(absl::ToInt64Nanoseconds(rest + absl::Nanoseconds(1))));
  lock.release();
  return result == std::cv_status::no_timeout || clock.Now() < deadline;
}

}  // namespace peerchunk
