#include "service/alarms.h"

#include <pthread.h>

namespace peerchunk {

Alarms::Alarms(Clock* clock) : clock_(clock), thread_([this] { Work(); }) {
  pthread_setname_np(thread_.native_handle(), "pc-alarms");
}

Alarms::~Alarms() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

Alarms::Id Alarms::At(absl::Time time, std::function<void()> then) {
  const MutexLock lock(mutex_);
  const Id id = ++last_id_;
  const auto added = waiting_.emplace(std::pair(time, id), std::move(then)).first;
  times_.emplace(id, time);
  if (added == waiting_.begin()) changed_.NotifyAll();
  return id;
}

bool Alarms::Cancel(Id id) {
  std::function<void()> dropped;  // Goes after the lock.
  const MutexLock lock(mutex_);
  const auto found = times_.find(id);
  if (found == times_.end()) return false;
  const auto entry = waiting_.find({found->second, id});
  dropped = std::move(entry->second);
  waiting_.erase(entry);
  times_.erase(found);
  return true;
}

void Alarms::Work() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    const absl::Time next =
        waiting_.empty() ? absl::InfiniteFuture() : waiting_.begin()->first.first;
    if (clock_->Now() < next) {
      clock_->WaitUntil(changed_, mutex_, next);
      continue;
    }
    const auto due = waiting_.begin();
    std::function<void()> then = std::move(due->second);
    times_.erase(due->first.second);
    waiting_.erase(due);
    lock.Unlock();
    then();
    then = nullptr;  // What it owns goes before the lock is taken again.
    lock.Lock();
  }
}

}  // namespace peerchunk
