#include "storage/gcs_core/gcs_errors.h"

#include <absl/strings/match.h>

namespace peerchunk {
namespace {

// gRPC itself raises RESOURCE_EXHAUSTED for a message over the receive limit.
bool OverReceiveLimit(const absl::Status& status) {
  return absl::IsResourceExhausted(status) &&
         absl::StrContains(status.message(), "larger than max");
}

}  // namespace

RetryAdvice AdviceFor(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:  // Not by the caller: that is settled before.
      return RetryAdvice::kAgain;
    case absl::StatusCode::kResourceExhausted:
      return OverReceiveLimit(status) ? RetryAdvice::kFail : RetryAdvice::kAgainPaused;
    case absl::StatusCode::kUnauthenticated:
      return RetryAdvice::kOnceMorePaused;
    default:
      return RetryAdvice::kFail;
  }
}

bool OutcomeUnknown(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kResourceExhausted:
      return true;
    default:
      return false;
  }
}

bool MayBeChecksumMismatch(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsDataLoss(status) ||
         absl::IsFailedPrecondition(status);
}

bool WorthResuming(const absl::Status& status) {
  // The caller's cancel, and a precondition that does not hold: loops that give up on the server's
  // ABORTED end as Unavailable.
  if (absl::IsCancelled(status) || absl::IsAborted(status)) return false;
  if (OverReceiveLimit(status)) return false;
  return OutcomeUnknown(status) || absl::IsUnauthenticated(status);
}

}  // namespace peerchunk
