#pragma once

#include <optional>
#include <string>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/status.h"
#include "storage/gcs_core/attempt.h"
#include "storage/gcs_core/gcs_context.h"
#include "storage/gcs_core/gcs_errors.h"

namespace peerchunk {

struct RetryPolicy {
  absl::Duration backoff_first;
  absl::Duration backoff_most;
  absl::Duration pause;          // The least wait where AdviceFor asks for one.
  absl::Duration budget;         // Over all attempts since the last progress.
  bool conflicts_pause = false;  // ABORTED means a conflicting writer, who needs a moment.

  static RetryPolicy ForReads(const GcsTuning& tuning);
  static RetryPolicy ForWrites(const GcsTuning& tuning);
};

// Decides after each failed attempt of one request whether there is another one, and waits before
// it: full-jitter backoff on the context's clock. One thread; lives on its stack.
class RetryLoop {
 public:
  RetryLoop(GcsContext& context, const CallLimits& limits, const RetryPolicy& policy);

  // OK, after the wait: try again. Else the error to return. `status` is a settled one. Never
  // Aborted: to callers that is a precondition that does not hold.
  absl::Status Next(const absl::Status& status, std::optional<size_t> channel);
  // The last attempt got somewhere: backoff and budget begin again.
  void Progress();
  // So long it was not the service that kept this waiting: the budget does not count it.
  void Excuse(absl::Duration waited) { budget_end_ += waited; }

  // The channel that the next attempt should avoid.
  std::optional<size_t> avoid() const { return avoid_; }
  int retries() const { return retries_; }

 private:
  absl::Duration Delay(RetryAdvice advice);

  GcsContext& context_;
  const CallLimits& limits_;
  const RetryPolicy policy_;
  absl::Time budget_end_;
  absl::Duration bound_;
  std::optional<size_t> avoid_;
  bool unauthenticated_ = false;
  int retries_ = 0;
};

// Makes a request without a stream until it succeeds or must not be repeated. `request` takes a
// GcsCall& and returns a Status or a StatusOr.
template <typename Request>
auto CallWithRetry(GcsContext& context, const CallLimits& limits, const RetryPolicy& policy,
                   Request request, int* retries = nullptr)
    -> decltype(request(std::declval<GcsCall&>())) {
  RetryLoop loop(context, limits, policy);
  const std::string token = GcsContext::NewToken();
  for (;;) {
    PEERCHUNK_RETURN_IF_ERROR(limits.Check(context.clock));
    std::optional<size_t> channel;
    absl::Status status;
    {
      Attempt attempt(context, limits, token, loop.avoid());
      channel = attempt.channel();
      attempt.Expect(context.clock.Now(), context.tuning.answer, context.metrics.answer_stalls);
      auto result = request(attempt.call());
      status = attempt.Settle(internal::ToStatus(result));
      if (status.ok()) return result;
    }
    PEERCHUNK_RETURN_IF_ERROR(loop.Next(status, channel));
    if (retries != nullptr) *retries = loop.retries();
  }
}

}  // namespace peerchunk
