#pragma once

#include <stop_token>

#include <absl/status/status.h>
#include <absl/time/time.h>

#include "peerchunk/base/clock.h"

namespace peerchunk {

// Cancelled or DeadlineExceeded once the caller no longer waits for the answer. `Options` is
// ReadOptions or WriteOptions. Providers ask between pieces of at most 1 MiB.
template <typename Options>
absl::Status CheckStillWanted(Clock& clock, const Options& options) {
  if (options.cancellation.stop_requested()) return absl::CancelledError("cancelled by the caller");
  if (options.deadline != absl::InfiniteFuture() && clock.Now() >= options.deadline) {
    return absl::DeadlineExceededError("the caller's deadline has passed");
  }
  return absl::OkStatus();
}

}  // namespace peerchunk
