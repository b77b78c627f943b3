#include "storage/gcs_core/attempt.h"

#include <algorithm>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/status.h"
#include "storage/gcs_core/gcs_errors.h"

namespace peerchunk {

absl::Status CallLimits::Check(Clock& clock) const {
  if (cancellation.stop_requested()) return absl::CancelledError("cancelled by the caller");
  if (clock.Now() >= deadline)
    return absl::DeadlineExceededError("the caller's deadline has passed");
  return absl::OkStatus();
}

Attempt::Attempt(GcsContext& context, const CallLimits& limits, const std::string& token,
                 std::optional<size_t> avoid)
    : context_(context),
      limits_(limits),
      lease_(context.channels, context.channels.Pick(avoid)),
      call_(lease_.stub().NewCall({.idempotency_token = token, .deadline = limits.deadline})),
      watch_(context.watchdog, call_),
      on_cancel_(limits.cancellation, [call = call_] { call->Cancel(); }) {}

void Attempt::Expect(absl::Time since, absl::Duration budget, Counter& stalls) {
  if (watch_.fired()) return;  // What was expected then is the cause.
  budget_ = budget;
  stalls_ = &stalls;
  watch_.Expect(std::min(since + budget, limits_.deadline));
}

absl::Status Attempt::Settle(const absl::Status& status) {
  watch_.Rest();
  absl::Status settled = status;
  if (!status.ok()) {
    if (absl::Status over = limits_.Check(context_.clock); !over.ok()) {
      settled = over;
    } else if (watch_.fired()) {
      stalls_->Add();
      settled = absl::UnavailableError(
          absl::StrCat("nothing came for ", absl::FormatDuration(budget_), ": cancelled"));
    }
  }
  context_.metrics.attempts(settled.code()).Add();
  if (settled.ok()) {
    lease_.Worked();
  } else if (watch_.fired() || absl::IsUnavailable(settled) || absl::IsInternal(settled) ||
             (absl::IsDeadlineExceeded(settled) && context_.clock.Now() < limits_.deadline)) {
    lease_.Failed();
  }
  return settled;
}

}  // namespace peerchunk
