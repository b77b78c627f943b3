#include "peerchunk/base/executor.h"

#include <pthread.h>

#include <cassert>
#include <utility>

#include <absl/strings/str_cat.h>

#include "base/short_turns.h"

namespace peerchunk {

ThreadPool::ThreadPool(const std::string& name, size_t threads, Turns turns) : turns_(turns) {
  assert(threads >= 1);
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Work(); });
    // The kernel keeps 15 characters and refuses longer names.
    const std::string thread_name = absl::StrCat(name.substr(0, 11), "-", i).substr(0, 15);
    pthread_setname_np(threads_.back().native_handle(), thread_name.c_str());
  }
}

ThreadPool::~ThreadPool() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  ready_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Run(Priority priority, std::function<void()> task) {
  {
    const MutexLock lock(mutex_);
    queues_[static_cast<size_t>(priority)].push_back(std::move(task));
  }
  ready_.NotifyOne();
}

void ThreadPool::Work() {
  if (turns_ == Turns::kShort) PreferShortTurns();
  MutexLock lock(mutex_);
  while (true) {
    std::deque<std::function<void()>>* queue = nullptr;
    for (auto& lane : queues_) {
      if (!lane.empty()) {
        queue = &lane;
        break;
      }
    }
    if (queue == nullptr) {
      if (stopping_) return;
      ready_.Wait(mutex_);
      continue;
    }
    std::function<void()> task = std::move(queue->front());
    queue->pop_front();
    lock.Unlock();
    task();
    task = nullptr;  // What it owns goes before the lock is taken again.
    lock.Lock();
  }
}

}  // namespace peerchunk
