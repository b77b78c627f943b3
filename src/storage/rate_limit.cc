#include "storage/rate_limit.h"

#include <algorithm>

namespace peerchunk {

absl::Status RateLimit::Spend(uint64_t bytes, absl::Time deadline,
                              const std::stop_token& cancellation) {
  if (unlimited_ || bytes == 0) return absl::OkStatus();
  absl::Time mine;
  {
    const MutexLock lock(mutex_);
    mine = bucket_.Spend(bytes, clock_.Now());
  }
  const bool in_time = mine <= deadline;
  const bool cancelled = !clock_.SleepUntil(std::min(mine, deadline), cancellation);
  if (in_time && !cancelled) return absl::OkStatus();
  {
    // What was not used is given back, unless others have queued behind it.
    const MutexLock lock(mutex_);
    if (bucket_.paid_at() == mine) bucket_.GiveBack(bytes, clock_.Now());
  }
  if (cancelled) return absl::CancelledError("cancelled by the caller");
  return absl::DeadlineExceededError("the caller's deadline passed at the rate limit");
}

}  // namespace peerchunk
