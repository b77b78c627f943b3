#include "storage/gcs_core/gcs_metrics.h"

#include <string>

namespace peerchunk {
namespace {

constexpr std::string_view kCodeNames[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

}  // namespace

size_t GcsMetrics::Index(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  return index < kCodes ? index : static_cast<size_t>(absl::StatusCode::kUnknown);
}

std::string_view StatusCodeName(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  return index < std::size(kCodeNames) ? kCodeNames[index] : "UNKNOWN";
}

GcsMetrics::GcsMetrics(Metrics& metrics)
    : read_resumes(metrics.counter("peerchunk_gcs_read_resumes_total")),
      write_resumes(metrics.counter("peerchunk_gcs_write_resumes_total")),
      session_restarts(metrics.counter("peerchunk_gcs_session_restarts_total")),
      first_byte_stalls(metrics.counter("peerchunk_gcs_stalls_total", {{"reason", "first_byte"}})),
      read_stalls(metrics.counter("peerchunk_gcs_stalls_total", {{"reason", "read"}})),
      write_stalls(metrics.counter("peerchunk_gcs_stalls_total", {{"reason", "write"}})),
      answer_stalls(metrics.counter("peerchunk_gcs_stalls_total", {{"reason", "answer"}})),
      read_bytes(metrics.counter("peerchunk_gcs_read_bytes_total")),
      written_bytes(metrics.counter("peerchunk_gcs_written_bytes_total")),
      first_byte_microseconds(metrics.counter("peerchunk_gcs_first_byte_microseconds_total")),
      first_bytes(metrics.counter("peerchunk_gcs_first_bytes_total")),
      checksum_mismatches(metrics.counter("peerchunk_gcs_checksum_mismatches_total")),
      leftover_parts(metrics.counter("peerchunk_gcs_leftover_parts_total")) {
  for (size_t i = 0; i < kCodes; ++i) {
    const std::string code(kCodeNames[i]);
    attempts_[i] = &metrics.counter("peerchunk_gcs_attempts_total", {{"outcome", code}});
    retries_[i] = &metrics.counter("peerchunk_gcs_retries_total", {{"reason", code}});
  }
}

}  // namespace peerchunk
