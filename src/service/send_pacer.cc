#include "service/send_pacer.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace peerchunk {

SendPacer::SendPacer(uint64_t bytes_per_second, Clock* clock, Alarms* alarms,
                     Counter& throttled_microseconds)
    : clock_(clock),
      alarms_(alarms),
      throttled_microseconds_(throttled_microseconds),
      unlimited_(bytes_per_second == 0),
      buckets_(std::max<uint64_t>(bytes_per_second, 1)) {}

absl::Time SendPacer::DueLocked(Priority lane) const {
  if (lane == Priority::kPrefetch) return buckets_.all.paid_at();
  return buckets_.demand.paid_at() - buckets_.demand.CostOf(kDemandBurstBytes);
}

void SendPacer::SpendLocked(Priority lane, uint64_t bytes, absl::Time now) {
  buckets_.all.Spend(bytes, now);
  if (lane == Priority::kDemand) buckets_.demand.Spend(bytes, now);
}

bool SendPacer::TrySpend(Priority lane, uint64_t bytes) {
  if (unlimited_) return true;
  const absl::Time now = clock_->Now();
  const MutexLock lock(mutex_);
  if (!lanes_[Index(lane)].turns.empty() || DueLocked(lane) > now) return false;
  SpendLocked(lane, bytes, now);
  return true;
}

SendPacer::Ticket SendPacer::Wait(const std::string& peer, Priority lane, uint64_t bytes,
                                  std::function<void()> then) {
  Ticket ticket = 0;
  {
    const absl::Time now = clock_->Now();
    const MutexLock lock(mutex_);
    ticket = ++last_ticket_;
    Lane& line = lanes_[Index(lane)];
    std::deque<Waiter>& waiters = line.waiters[peer];
    if (waiters.empty()) line.turns.push_back(peer);
    waiters.push_back({ticket, bytes, now, std::move(then)});
  }
  GrantWaiting();
  return ticket;
}

bool SendPacer::Forget(const std::string& peer, Priority lane, Ticket ticket) {
  Waiter forgotten;  // Goes after the lock: it may hold the last of a call.
  const MutexLock lock(mutex_);
  Lane& line = lanes_[Index(lane)];
  const auto found = line.waiters.find(peer);
  if (found == line.waiters.end()) return false;
  std::deque<Waiter>& waiters = found->second;
  const auto waiter = std::find_if(waiters.begin(), waiters.end(),
                                   [ticket](const Waiter& w) { return w.ticket == ticket; });
  if (waiter == waiters.end()) return false;
  forgotten = std::move(*waiter);
  waiters.erase(waiter);
  if (waiters.empty()) {
    line.waiters.erase(found);
    std::erase(line.turns, peer);
  }
  return true;
}

void SendPacer::Spend(Priority lane, uint64_t bytes) {
  if (unlimited_) return;
  const absl::Time now = clock_->Now();
  const MutexLock lock(mutex_);
  SpendLocked(lane, bytes, now);  // An alarm that is set comes too early now, and is set again.
}

void SendPacer::GiveBack(Priority lane, uint64_t bytes) {
  if (unlimited_ || bytes == 0) return;
  {
    const absl::Time now = clock_->Now();
    const MutexLock lock(mutex_);
    buckets_.all.GiveBack(bytes, now);
    if (lane == Priority::kDemand) buckets_.demand.GiveBack(bytes, now);
    if (lanes_[0].turns.empty() && lanes_[1].turns.empty()) return;
  }
  GrantWaiting();
}

void SendPacer::GrantWaiting() {
  std::vector<std::function<void()>> granted;
  {
    const absl::Time now = clock_->Now();
    const MutexLock lock(mutex_);
    for (const Priority lane : {Priority::kDemand, Priority::kPrefetch}) {
      Lane& line = lanes_[Index(lane)];
      while (!line.turns.empty() && DueLocked(lane) <= now) {
        std::string peer = std::move(line.turns.front());
        line.turns.pop_front();
        const auto found = line.waiters.find(peer);
        Waiter waiter = std::move(found->second.front());
        found->second.pop_front();
        SpendLocked(lane, waiter.bytes, now);
        throttled_microseconds_.Add(
            static_cast<uint64_t>(absl::ToInt64Microseconds(now - waiter.since)));
        granted.push_back(std::move(waiter.then));
        if (found->second.empty()) {
          line.waiters.erase(found);
        } else {
          line.turns.push_back(std::move(peer));
        }
      }
    }
    SetAlarmLocked();
  }
  for (const std::function<void()>& then : granted) then();
}

void SendPacer::SetAlarmLocked() {
  absl::Time due = absl::InfiniteFuture();
  for (const Priority lane : {Priority::kDemand, Priority::kPrefetch}) {
    if (!lanes_[Index(lane)].turns.empty()) due = std::min(due, DueLocked(lane));
  }
  if (due == alarm_at_) return;
  if (alarm_ != 0) alarms_->Cancel(std::exchange(alarm_, 0));
  alarm_at_ = due;
  if (due == absl::InfiniteFuture()) return;
  alarm_ = alarms_->At(due, [this, due] {
    {
      const MutexLock lock(mutex_);
      if (alarm_at_ == due) {
        alarm_ = 0;
        alarm_at_ = absl::InfiniteFuture();
      }
    }
    GrantWaiting();
  });
}

size_t SendPacer::waiting() const {
  const MutexLock lock(mutex_);
  size_t count = 0;
  for (const Lane& lane : lanes_) {
    for (const auto& [peer, waiters] : lane.waiters) count += waiters.size();
  }
  return count;
}

}  // namespace peerchunk
