#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <utility>

#include "peerchunk/base/mutex.h"

namespace peerchunk {

// Lets a fixed set of threads, which take requests and may wait inside them, always keep one thread
// free to take the next one: without it, an interrupt could not reach the reads that fill all
// threads. Owned by a mount; thread-safe.
class RequestLanes {
 public:
  // `limit`: tasks at a time, one less than there are threads.
  explicit RequestLanes(size_t limit) : limit_(limit) {}

  // Runs `task` now and then whatever was put off meanwhile; or, when `limit` tasks run, puts it
  // off for the next thread that is done with one.
  void Run(std::function<void()> task) {
    MutexLock lock(mutex_);
    if (running_ == limit_) {
      waiting_.push_back(std::move(task));
      return;
    }
    ++running_;
    while (true) {
      lock.Unlock();
      task();
      lock.Lock();
      if (waiting_.empty()) break;
      task = std::move(waiting_.front());
      waiting_.pop_front();
    }
    --running_;
  }

 private:
  const size_t limit_;
  Mutex mutex_;
  size_t running_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  std::deque<std::function<void()>> waiting_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
