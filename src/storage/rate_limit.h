#pragma once

#include <algorithm>
#include <cstdint>
#include <stop_token>

#include <absl/status/status.h>
#include <absl/time/time.h>

#include "base/token_bucket.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk {

// Spends bytes at a fixed rate on one clock, in the order of asking and without bursts: N bytes
// take N / rate seconds whether asked for at once or in pieces. Owned by a provider. Thread-safe.
class RateLimit {
 public:
  // `bytes_per_second` 0: no limit. `clock` must outlive this.
  RateLimit(uint64_t bytes_per_second, Clock& clock)
      : unlimited_(bytes_per_second == 0),
        clock_(clock),
        bucket_(std::max<uint64_t>(bytes_per_second, 1)) {}

  // Returns when `bytes` more may have passed; Cancelled or DeadlineExceeded when that comes first.
  absl::Status Spend(uint64_t bytes, absl::Time deadline, const std::stop_token& cancellation);

 private:
  const bool unlimited_;
  Clock& clock_;
  Mutex mutex_;
  TokenBucket bucket_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
