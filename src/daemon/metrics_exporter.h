#pragma once

#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "node/socket_address.h"
#include "peerchunk/base/metrics.h"

namespace peerchunk {

// Serves a registry's series, and those of this process, to Prometheus: GET /metrics, over HTTP
// without encryption, on two threads of its own. Owned by the daemon; stops with the destructor,
// which waits for a scrape under way. Immutable once started.
class MetricsExporter {
 public:
  // `metrics` is borrowed. An error has the system's reason why nothing can listen there.
  static absl::StatusOr<std::unique_ptr<MetricsExporter>> Start(const Metrics* metrics,
                                                                const ListenAddress& address);
  ~MetricsExporter();
  MetricsExporter(const MetricsExporter&) = delete;
  MetricsExporter& operator=(const MetricsExporter&) = delete;

  // As bound: port 0 has become a real one.
  const std::string& address() const { return address_; }

 private:
  struct Impl;
  MetricsExporter(std::unique_ptr<Impl> impl, std::string address);

  const std::unique_ptr<Impl> impl_;
  const std::string address_;
};

}  // namespace peerchunk
