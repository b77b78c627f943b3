#include "storage/rate_limit.h"

#include <algorithm>

namespace peerchunk {

absl::Status RateLimit::Spend(uint64_t bytes, absl::Time deadline,
                              const std::stop_token& cancellation) {
  if (bytes_per_second_ == 0 || bytes == 0) return absl::OkStatus();
  const auto rate = static_cast<double>(bytes_per_second_);
  const absl::Duration cost = absl::Seconds(static_cast<double>(bytes) / rate);
  absl::Time mine;
  {
    const MutexLock lock(mutex_);
    mine = std::max(clock_.Now(), spent_until_) + cost;
    spent_until_ = mine;
  }
  const bool in_time = mine <= deadline;
  const bool cancelled = !clock_.SleepUntil(std::min(mine, deadline), cancellation);
  if (in_time && !cancelled) return absl::OkStatus();
  {
    // What was not used is given back, unless others have queued behind it.
    const MutexLock lock(mutex_);
    if (spent_until_ == mine) spent_until_ = std::max(mine - cost, clock_.Now());
  }
  if (cancelled) return absl::CancelledError("cancelled by the caller");
  return absl::DeadlineExceededError("the caller's deadline passed at the rate limit");
}

}  // namespace peerchunk
