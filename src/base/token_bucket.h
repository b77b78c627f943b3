#pragma once

#include <algorithm>
#include <cstdint>

#include <absl/time/time.h>

namespace peerchunk {

// The arithmetic of a fixed rate: what is spent makes a debt that time pays, without bursts, so N
// bytes take N / rate seconds whether spent at once or in pieces. One thread at a time.
class TokenBucket {
 public:
  // More than 0.
  explicit TokenBucket(uint64_t bytes_per_second)
      : bytes_per_second_(static_cast<double>(bytes_per_second)) {}

  absl::Duration CostOf(uint64_t bytes) const {
    return absl::Seconds(static_cast<double>(bytes) / bytes_per_second_);
  }
  // When all that is spent by now, with these `bytes`, will be paid.
  absl::Time Spend(uint64_t bytes, absl::Time now) {
    paid_at_ = std::max(now, paid_at_) + CostOf(bytes);
    return paid_at_;
  }
  // `bytes` that were spent did not pass; what time has paid of them since is lost.
  void GiveBack(uint64_t bytes, absl::Time now) {
    paid_at_ = std::min(paid_at_, std::max(paid_at_ - CostOf(bytes), now));
  }
  absl::Time paid_at() const { return paid_at_; }

 private:
  const double bytes_per_second_;
  absl::Time paid_at_ = absl::InfinitePast();
};

}  // namespace peerchunk
