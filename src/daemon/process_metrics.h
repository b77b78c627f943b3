#pragma once

#include <vector>

#include "peerchunk/base/metrics.h"

namespace peerchunk {

// What every Prometheus client library tells of its process, under the names that they all use:
// process_cpu_seconds_total, process_resident_memory_bytes and so on, ordered by name. What the
// system does not tell is left out. Thread-safe.
std::vector<MetricSample> ProcessSamples();

}  // namespace peerchunk
