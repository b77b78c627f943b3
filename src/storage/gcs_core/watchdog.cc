#include "storage/gcs_core/watchdog.h"

#include <pthread.h>

#include <limits>

namespace peerchunk {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

int64_t ToNanos(absl::Time time) {
  return time == absl::InfiniteFuture() ? kNever : absl::ToUnixNanos(time);
}

}  // namespace

Watchdog::Watchdog(Clock& clock) : clock_(clock), thread_([this] { Run(); }) {}

Watchdog::~Watchdog() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void Watchdog::Queue(const std::shared_ptr<Entry>& entry) {
  for (;;) {
    const int64_t at = entry->deadline.load();
    entry->queued_for.store(at);
    if (at == entry->deadline.load()) {
      if (at != kNever) queue_.emplace(at, entry);
      return;
    }
  }
}

void Watchdog::Unqueue(const std::shared_ptr<Entry>& entry) {
  queue_.erase({entry->queued_for.load(), entry});
}

void Watchdog::Run() {
  pthread_setname_np(pthread_self(), "gcs-watchdog");
  MutexLock lock(mutex_);
  while (!stopping_) {
    if (queue_.empty()) {
      clock_.WaitUntil(changed_, mutex_, absl::InfiniteFuture());
      continue;
    }
    const int64_t at = queue_.begin()->first;
    const int64_t now = ToNanos(clock_.Now());
    if (at > now) {
      clock_.WaitUntil(changed_, mutex_, absl::FromUnixNanos(at));
      continue;
    }
    std::shared_ptr<Entry> entry = queue_.begin()->second;  // Not kept over a wait.
    queue_.erase(queue_.begin());
    if (entry->deadline.load() > now) {
      Queue(entry);
      continue;
    }
    entry->queued_for.store(kNever);
    entry->fired.store(true);
    lock.Unlock();
    entry->call->Cancel();
    entry.reset();  // Maybe the last to hold the call, whose end is nothing for under the lock.
    lock.Lock();
  }
}

Watchdog::Watch::Watch(Watchdog& watchdog, std::shared_ptr<GcsCall> call)
    : watchdog_(watchdog), entry_(std::make_shared<Entry>()) {
  entry_->call = std::move(call);
  entry_->deadline.store(kNever);
  entry_->queued_for.store(kNever);
}

Watchdog::Watch::~Watch() {
  MutexLock lock(watchdog_.mutex_);
  watchdog_.Unqueue(entry_);
}

void Watchdog::Watch::Expect(absl::Time deadline) {
  const int64_t at = ToNanos(deadline);
  entry_->deadline.store(at);
  if (at >= entry_->queued_for.load()) return;
  MutexLock lock(watchdog_.mutex_);
  if (entry_->fired.load()) return;
  watchdog_.Unqueue(entry_);
  watchdog_.Queue(entry_);
  watchdog_.changed_.NotifyAll();
}

void Watchdog::Watch::Rest() { entry_->deadline.store(kNever); }

bool Watchdog::Watch::fired() const { return entry_->fired.load(); }

}  // namespace peerchunk
