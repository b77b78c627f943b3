#pragma once

#include <array>
#include <string_view>

#include <absl/status/status.h>

#include "peerchunk/base/metrics.h"

namespace peerchunk {

// "OK", "UNAVAILABLE", ...: a status code as a label.
std::string_view StatusCodeName(absl::StatusCode code);

// The series of one provider, looked up once.
struct GcsMetrics {
  explicit GcsMetrics(Metrics& metrics);

  Counter& attempts(absl::StatusCode outcome) { return *attempts_[Index(outcome)]; }
  Counter& retries(absl::StatusCode reason) { return *retries_[Index(reason)]; }

  Counter& read_resumes;   // A read went on at the byte reached.
  Counter& write_resumes;  // An upload went on at what the server had.
  Counter& session_restarts;
  Counter& first_byte_stalls;
  Counter& read_stalls;
  Counter& write_stalls;
  Counter& answer_stalls;
  Counter& read_bytes;
  Counter& written_bytes;  // Sent, including what was sent twice.
  // Time to first byte: the sum, and how many were summed.
  Counter& first_byte_microseconds;
  Counter& first_bytes;
  Counter& checksum_mismatches;
  Counter& leftover_parts;

 private:
  static constexpr size_t kCodes = 17;
  static size_t Index(absl::StatusCode code);

  std::array<Counter*, kCodes> attempts_;
  std::array<Counter*, kCodes> retries_;
};

}  // namespace peerchunk
