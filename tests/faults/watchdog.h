#pragma once

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk::test {

// Aborts the test program when it lives longer than it may: a read that is stuck does not end by
// itself. Kick() begins the time again.
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
    until_ = Clock::Real().Now() + limit_;
  }

 private:
  void Run() {
    const MutexLock lock(mutex_);
    until_ = Clock::Real().Now() + limit_;
    while (!over_) {
      if (Clock::Real().Now() >= until_) {
        std::fprintf(stderr, "watchdog: no end within %s\n", absl::FormatDuration(limit_).c_str());
        std::abort();
      }
      Clock::Real().WaitUntil(changed_, mutex_, until_);
    }
  }

  const absl::Duration limit_;
  Mutex mutex_;
  CondVar changed_;
  bool over_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  absl::Time until_ PEERCHUNK_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace peerchunk::test
