#include "storage/gcs_core/retry.h"

#include <algorithm>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/status.h"

namespace peerchunk {

RetryPolicy RetryPolicy::ForReads(const GcsTuning& tuning) {
  return {tuning.read_backoff_first, tuning.read_backoff_most, tuning.pause, tuning.read_budget};
}

RetryPolicy RetryPolicy::ForWrites(const GcsTuning& tuning) {
  return {tuning.write_backoff_first, tuning.write_backoff_most, tuning.pause, tuning.write_budget,
          /*conflicts_pause=*/true};
}

RetryLoop::RetryLoop(GcsContext& context, const CallLimits& limits, const RetryPolicy& policy)
    : context_(context), limits_(limits), policy_(policy) {
  Progress();
}

void RetryLoop::Progress() {
  budget_end_ = context_.clock.Now() + policy_.budget;
  bound_ = policy_.backoff_first;
  unauthenticated_ = false;
}

absl::Duration RetryLoop::Delay(RetryAdvice advice) {
  const int64_t bound = absl::ToInt64Nanoseconds(bound_);
  const absl::Duration jittered = absl::Nanoseconds(
      bound <= 0 ? 0 : static_cast<int64_t>(context_.random() % static_cast<uint64_t>(bound + 1)));
  bound_ = std::min(bound_ * 2, policy_.backoff_most);
  return advice == RetryAdvice::kAgain ? jittered : std::max(policy_.pause, jittered);
}

absl::Status RetryLoop::Next(const absl::Status& status, std::optional<size_t> channel) {
  PEERCHUNK_RETURN_IF_ERROR(limits_.Check(context_.clock));
  RetryAdvice advice = AdviceFor(status);
  if (policy_.conflicts_pause && absl::IsAborted(status)) advice = RetryAdvice::kAgainPaused;
  if (advice == RetryAdvice::kFail) return status;
  if (advice == RetryAdvice::kOnceMorePaused) {
    if (unauthenticated_) return status;
    unauthenticated_ = true;
  }
  const absl::Time now = context_.clock.Now();
  const absl::Time next = now + Delay(advice);
  if (next >= budget_end_) {
    return absl::Status(absl::IsAborted(status) ? absl::StatusCode::kUnavailable : status.code(),
                        absl::StrCat("gave up after ", absl::FormatDuration(policy_.budget),
                                     " without progress: ", status.message()));
  }
  if (next >= limits_.deadline) {
    return absl::DeadlineExceededError(
        absl::StrCat("no time left to try again after: ", status.ToString()));
  }
  avoid_ = channel;
  ++retries_;
  context_.metrics.retries(status.code()).Add();
  if (!context_.clock.SleepUntil(next, limits_.cancellation)) return limits_.Check(context_.clock);
  return absl::OkStatus();
}

}  // namespace peerchunk
