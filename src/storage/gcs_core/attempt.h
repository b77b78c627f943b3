#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include <absl/status/status.h>
#include <absl/time/time.h>

#include "peerchunk/base/metrics.h"
#include "storage/gcs_core/channel_pool.h"
#include "storage/gcs_core/gcs_context.h"
#include "storage/gcs_core/watchdog.h"

namespace peerchunk {

// How far the caller's patience goes.
struct CallLimits {
  absl::Time deadline = absl::InfiniteFuture();
  std::stop_token cancellation;

  // Cancelled or DeadlineExceeded when the caller is done with this, else OK.
  absl::Status Check(Clock& clock) const;
};

// One attempt of one request: a call on a channel, under the watchdog, cancelled with the caller.
// Lives on the stack of the thread that makes the request.
class Attempt {
 public:
  // `token` is the request's idempotency token; `avoid` the channel that failed last.
  Attempt(GcsContext& context, const CallLimits& limits, const std::string& token,
          std::optional<size_t> avoid);

  GcsCall& call() { return *call_; }
  size_t channel() const { return lease_.index(); }

  // Until Rest, the call is cancelled `budget` after `since` or at the caller's deadline. `stalls`
  // counts the former.
  void Expect(absl::Time since, absl::Duration budget, Counter& stalls);
  void Rest() { watch_.Rest(); }

  // What really ended the request, given what the call said; counted. Once.
  absl::Status Settle(const absl::Status& status);

 private:
  GcsContext& context_;
  const CallLimits& limits_;
  ChannelPool::Lease lease_;
  std::shared_ptr<GcsCall> call_;
  Watchdog::Watch watch_;
  std::stop_callback<std::function<void()>> on_cancel_;
  absl::Duration budget_;  // As last expected, with its counter.
  Counter* stalls_ = nullptr;
};

}  // namespace peerchunk
