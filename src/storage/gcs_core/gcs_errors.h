#pragma once

#include <absl/status/status.h>

namespace peerchunk {

// What a failed request to Cloud Storage asks for, by its status code, as far as every request
// shares it. Uploads decide first about the codes that concern their session.
enum class RetryAdvice {
  kFail,           // Would fail again.
  kAgain,          // On another channel, after the usual backoff.
  kAgainPaused,    // The same, after a pause.
  kOnceMorePaused  // One more time, after a pause.
};

RetryAdvice AdviceFor(const absl::Status& status);

// True when the request may have been carried out although it failed.
bool OutcomeUnknown(const absl::Status& status);

// True for the codes as which the service reports bytes that differ from their checksum.
bool MayBeChecksumMismatch(const absl::Status& status);

// True when a write that ended so may well succeed later: what it left on the server is worth
// keeping.
bool WorthResuming(const absl::Status& status);

}  // namespace peerchunk
