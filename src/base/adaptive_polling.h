#pragma once

#include <algorithm>
#include <thread>

#include <absl/time/time.h>

namespace peerchunk {

// Whether to look again and again for what is waited for, or to fall asleep at once: falling asleep
// and being woken costs more than a wait that ends soon. One thread at a time.
class AdaptivePolling {
 public:
  // On one core, or where their number is not known (0), who polls only keeps the others from it.
  explicit AdaptivePolling(unsigned cores = std::thread::hardware_concurrency())
      : one_core_(cores <= 1) {}

  // How long to look before falling asleep; between two looks, whoever wants the core may have it
  // (sched_yield).
  absl::Duration Patience() const {
    return usual_ < kQuick && !one_core_ ? kPatience : absl::ZeroDuration();
  }
  // A wait has ended, with or without an end to the looking.
  void Waited(absl::Duration waited) { usual_ += (std::min(waited, kMostCounted) - usual_) / 8; }

 private:
  static constexpr absl::Duration kPatience = absl::Microseconds(100);
  static constexpr absl::Duration kQuick = absl::Microseconds(200);
  // However long it was: a pause between two quick times is soon forgotten.
  static constexpr absl::Duration kMostCounted = absl::Milliseconds(2);

  const bool one_core_;
  absl::Duration usual_;  // Moves an eighth of the way with each wait.
};

}  // namespace peerchunk
