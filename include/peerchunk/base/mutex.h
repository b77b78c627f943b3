#pragma once

#include <condition_variable>
#include <mutex>

#include <absl/time/time.h>

// Thread-safety annotations, checked by clang's -Wthread-safety.
#if defined(__clang__)
#define PEERCHUNK_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define PEERCHUNK_THREAD_ANNOTATION(x)
#endif
#define PEERCHUNK_GUARDED_BY(x) PEERCHUNK_THREAD_ANNOTATION(guarded_by(x))
#define PEERCHUNK_PT_GUARDED_BY(x) PEERCHUNK_THREAD_ANNOTATION(pt_guarded_by(x))
#define PEERCHUNK_REQUIRES(...) PEERCHUNK_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define PEERCHUNK_EXCLUDES(...) PEERCHUNK_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))

namespace peerchunk {

class CondVar;

// An annotated std::mutex. Not absl::Mutex: Debian's abseil is not built for ThreadSanitizer, which
// then reports correct code as a race. Held briefly: no I/O, no RPC and no callback under one; so
// whoever finds it locked looks a few times more before falling asleep.
class PEERCHUNK_THREAD_ANNOTATION(capability("mutex")) Mutex {
 public:
  Mutex();
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() PEERCHUNK_THREAD_ANNOTATION(acquire_capability()) { mutex_.lock(); }
  void Unlock() PEERCHUNK_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds a Mutex for a scope. Unlock and Lock bracket work that must not run under the lock.
class PEERCHUNK_THREAD_ANNOTATION(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) PEERCHUNK_THREAD_ANNOTATION(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.Lock();
  }
  ~MutexLock() PEERCHUNK_THREAD_ANNOTATION(release_capability()) {
    if (held_) mutex_.Unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void Unlock() PEERCHUNK_THREAD_ANNOTATION(release_capability()) {
    held_ = false;
    mutex_.Unlock();
  }
  void Lock() PEERCHUNK_THREAD_ANNOTATION(acquire_capability()) {
    mutex_.Lock();
    held_ = true;
  }

 private:
  Mutex& mutex_;
  bool held_ = true;
};

// A condition variable for Mutex. Waits wake spuriously: always wait in a loop over the condition.
// Code with deadlines waits through Clock::WaitUntil instead, so that tests own the time.
class CondVar {
 public:
  void Wait(Mutex& mutex) PEERCHUNK_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    cv_.wait(lock);
    lock.release();
  }
  // False when `deadline` (on Clock::Real()) passed without a notification.
  bool WaitUntil(Mutex& mutex, absl::Time deadline) PEERCHUNK_REQUIRES(mutex);
  void NotifyOne() { cv_.notify_one(); }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace peerchunk
