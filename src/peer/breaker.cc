#include "peer/breaker.h"

#include <algorithm>

namespace peerchunk {
namespace {

constexpr absl::Duration kLongestOpen = absl::Seconds(60);

}  // namespace

bool Breaker::Demotes(absl::Time now, bool wants_bytes) const {
  const MutexLock lock(mutex_);
  return open_ && !(wants_bytes && MayProbe(now));
}

bool Breaker::Enter(absl::Time now, bool wants_bytes) {
  const MutexLock lock(mutex_);
  if (!wants_bytes || !MayProbe(now)) return false;
  probing_ = true;
  transitions_.half_open->Add();
  return true;
}

void Breaker::OnBytes() {
  const MutexLock lock(mutex_);
  failures_ = 0;
  if (!open_) return;
  open_ = false;
  probing_ = false;
  open_for_ = budgets_.breaker_open;
  transitions_.closed->Add();
}

bool Breaker::OnFailure(absl::Time now, bool probe) {
  const MutexLock lock(mutex_);
  if (open_) {
    // Only the probe prolongs: readers that had no other choice do not.
    if (!probe || !probing_) return false;
    probing_ = false;
    open_for_ = std::min(open_for_ * 2, kLongestOpen);
    open_until_ = now + open_for_;
    transitions_.open->Add();
    return true;
  }
  if (++failures_ < budgets_.breaker_failures) return false;
  open_ = true;
  open_until_ = now + open_for_;
  transitions_.open->Add();
  return true;
}

void Breaker::OnNoVerdict(bool probe) {
  if (!probe) return;
  const MutexLock lock(mutex_);
  probing_ = false;
}

}  // namespace peerchunk
