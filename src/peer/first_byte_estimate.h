#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>

#include <absl/time/time.h>

namespace peerchunk {

// How long the first byte of a peer takes: a running estimate of its 95th percentile, in the manner
// of a quantile tracker that moves up by 19 steps for each sample above and down by one for each
// below. A time-out is a sample too: it proves that the time was at least so long. Thread-safe;
// lock-free, a lost update does no harm.
class FirstByteEstimate {
 public:
  // Starts high: a node that nobody has talked to may be cold.
  FirstByteEstimate(absl::Duration floor, absl::Duration ceiling)
      : floor_(absl::ToDoubleSeconds(floor)),
        ceiling_(absl::ToDoubleSeconds(ceiling)),
        seconds_(ceiling_) {}

  // How long to wait for a first byte before another source is asked too.
  absl::Duration HedgeDelay() const {
    const double delay = kMargin * seconds_.load(std::memory_order_relaxed);
    return absl::Seconds(std::clamp(delay, floor_, ceiling_));
  }

  void AddSample(absl::Duration time) { Add(absl::ToDoubleSeconds(time), false); }
  void AddLowerBound(absl::Duration time) { Add(absl::ToDoubleSeconds(time), true); }

 private:
  static constexpr double kMargin = 1.5;
  static constexpr double kStep = 0.02;  // Of the estimate.

  void Add(double sample, bool lower_bound) {
    const double old = seconds_.load(std::memory_order_relaxed);
    double next = old;
    if (sample >= old) {
      next = std::min(old * (1 + 19 * kStep), std::max(sample, old * (1 + kStep)));
    } else if (!lower_bound) {
      // A sample far below says more than one just below: the start value is forgotten soon.
      next = std::max(old * (1 - (sample < old / 4 ? 10 * kStep : kStep)), sample);
    } else {
      return;  // "At least" something smaller tells nothing.
    }
    seconds_.store(std::clamp(next, floor_ / kMargin, ceiling_), std::memory_order_relaxed);
  }

  const double floor_;
  const double ceiling_;
  std::atomic<double> seconds_;
};

}  // namespace peerchunk
