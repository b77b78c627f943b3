#include "daemon/metrics_help.h"

#include <algorithm>

namespace peerchunk {
namespace {

using Entry = std::pair<std::string_view, std::string_view>;

constexpr Entry kTable[] = {
    {"peerchunk_breaker_transitions_total", "Changes of a peer's circuit breaker, by new state"},
    {"peerchunk_chunk_fetches_total", "Fetches of missing chunks that ended, by outcome"},
    {"peerchunk_fallbacks_total", "Reads that left a source for another one, by reason"},
    {"peerchunk_gcs_attempts_total", "Requests to Cloud Storage, by status code"},
    {"peerchunk_gcs_checksum_mismatches_total", "Wrong bytes from or at Cloud Storage"},
    {"peerchunk_gcs_first_byte_microseconds_total", "Time until the first byte of a read, summed"},
    {"peerchunk_gcs_first_bytes_total", "Reads whose time to the first byte was summed"},
    {"peerchunk_gcs_leftover_parts_total", "Parts of uploads that could not be deleted"},
    {"peerchunk_gcs_read_bytes_total", "Bytes read from Cloud Storage"},
    {"peerchunk_gcs_read_resumes_total", "Reads that went on at the byte they had reached"},
    {"peerchunk_gcs_retries_total", "Requests to Cloud Storage made again, by status code"},
    {"peerchunk_gcs_session_restarts_total", "Uploads that began again from the first byte"},
    {"peerchunk_gcs_stalls_total", "Requests given up because nothing moved, by what was awaited"},
    {"peerchunk_gcs_write_resumes_total", "Uploads that went on at what the server had"},
    {"peerchunk_gcs_written_bytes_total", "Bytes sent to Cloud Storage, also those sent twice"},
    {"peerchunk_hedges_total", "Second requests, to the base while a peer was slow, by outcome"},
    {"peerchunk_mount_failures_total", "Reads of a mount that failed for good"},
    {"peerchunk_mount_overlay_bytes", "What guests have written to mounts"},
    {"peerchunk_mount_read_bytes_total", "Bytes that guests read from mounts"},
    {"peerchunk_mount_retries_total", "Reads of a mount tried again after an error"},
    {"peerchunk_overtaken_fetches_total",
     "Reads fetched beside a longer fetch that has them later"},
    {"peerchunk_passed_through_reads_total", "Reads that were not cached, by reason"},
    {"peerchunk_quarantines_total", "Peers not believed any more, by what they did"},
    {"peerchunk_read_ahead_bytes_total", "Bytes fetched before they were asked for, by outcome"},
    {"peerchunk_served_bytes_total", "Bytes sent to peers"},
    {"peerchunk_served_failures_total", "Calls and reads of peers that failed, by status code"},
    {"peerchunk_served_in_flight_bytes", "Memory of messages to peers that are under way"},
    {"peerchunk_served_in_flight_peak_bytes", "The most of it since the start"},
    {"peerchunk_served_stalled_calls_total", "Calls ended because the peer did not read"},
    {"peerchunk_served_throttled_microseconds_total", "Time that peers waited for a turn, summed"},
    {"peerchunk_source_bytes_total", "Checked bytes that reads were given, by source"},
    {"peerchunk_spoilt_cache_pages_total",
     "Pages of chunk caches that changed on the disk, and are fetched again"},
    {"peerchunk_stalls_total", "Sources left because they were silent or too slow"},
    {"peerchunk_sync_failures_total", "Records of builds that could not be made safe on disk"},
    {"peerchunk_template_loads_total", "Builds loaded, by outcome"},
    {"peerchunk_upload_attempts_total", "Attempts to upload a build, by outcome"},
    {"peerchunk_uploaded_bytes_total", "Bytes of builds confirmed by the base"},
    {"peerchunk_wasted_bytes_total", "Bytes received and not used, by reason"},
    {"peerchunk_working_set_bytes_total", "Bytes fetched because an earlier resume read them"},
    {"process_cpu_seconds_total", "User and system CPU time spent, in seconds"},
    {"process_max_fds", "Maximum number of open file descriptors"},
    {"process_open_fds", "Number of open file descriptors"},
    {"process_resident_memory_bytes", "Resident memory size in bytes"},
    {"process_start_time_seconds", "Start time of the process since unix epoch in seconds"},
    {"process_virtual_memory_bytes", "Virtual memory size in bytes"},
};

}  // namespace

absl::Span<const Entry> MetricHelpTable() { return kTable; }

std::string_view MetricHelp(std::string_view name) {
  const Entry* const found = std::lower_bound(
      std::begin(kTable), std::end(kTable), name,
      [](const Entry& entry, std::string_view wanted) { return entry.first < wanted; });
  return found != std::end(kTable) && found->first == name ? found->second : std::string_view();
}

}  // namespace peerchunk
