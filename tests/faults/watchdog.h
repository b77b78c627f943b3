#pragma once

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk::test {

// Aborts the test program when it lives longer than it may: a read that is stuck does not end by
// itself. Counts in steps, so that time in which the program is stopped does not count. Kick()
// begins the time again.
class Watchdog {
 public:
  explicit Watchdog(absl::Duration limit) : limit_(limit), thread_([this] { Run(); }) {}
  ~Watchdog() {
    {
      const MutexLock lock(mutex_);
      over_ = true;
    }
    changed_.NotifyAll();
    thread_.join();
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void Kick() {
    const MutexLock lock(mutex_);
    lived_ = absl::ZeroDuration();
  }

 private:
  void Run() {
    constexpr absl::Duration kStep = absl::Milliseconds(100);
    const MutexLock lock(mutex_);
    for (; !over_; lived_ += kStep) {
      if (lived_ >= limit_) {
        std::fprintf(stderr, "watchdog: no end within %s\n", absl::FormatDuration(limit_).c_str());
        std::abort();
      }
      Clock::Real().WaitUntil(changed_, mutex_, Clock::Real().Now() + kStep);
    }
  }

  const absl::Duration limit_;
  Mutex mutex_;
  CondVar changed_;
  bool over_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  absl::Duration lived_ PEERCHUNK_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace peerchunk::test
