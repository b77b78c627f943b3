#include "daemon/metrics_exporter.h"

#include <cstdint>
#include <exception>
#include <utility>
#include <vector>

#include "daemon/metrics_help.h"
#include "daemon/process_metrics.h"
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>

namespace peerchunk {
namespace {

constexpr char kThreads[] = "2";  // A scraper that hangs holds one.
constexpr char kRequestTimeoutMs[] = "10000";

// All series of one name are one family; `samples` is ordered by name.
std::vector<prometheus::MetricFamily> Families(const std::vector<MetricSample>& samples) {
  std::vector<prometheus::MetricFamily> families;
  for (const MetricSample& sample : samples) {
    if (families.empty() || families.back().name != sample.name) {
      prometheus::MetricFamily& family = families.emplace_back();
      family.name = sample.name;
      family.help = std::string(MetricHelp(sample.name));
      family.type =
          sample.is_counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
    }
    prometheus::ClientMetric& metric = families.back().metric.emplace_back();
    for (const auto& [name, value] : sample.labels) metric.label.push_back({name, value});
    (sample.is_counter ? metric.counter.value : metric.gauge.value) = sample.value;
  }
  return families;
}

class Series final : public prometheus::Collectable {
 public:
  explicit Series(const Metrics* metrics) : metrics_(metrics) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<MetricSample> samples = metrics_->Snapshot();
    for (MetricSample& sample : ProcessSamples()) samples.push_back(std::move(sample));
    return Families(samples);
  }

 private:
  const Metrics* const metrics_;
};

}  // namespace

// The exposer goes first: it does not ask for series any more.
struct MetricsExporter::Impl {
  std::shared_ptr<Series> series;
  std::unique_ptr<prometheus::Exposer> exposer;
};

absl::StatusOr<std::unique_ptr<MetricsExporter>> MetricsExporter::Start(
    const Metrics* metrics, const ListenAddress& address) {
  auto impl = std::make_unique<Impl>();
  impl->series = std::make_shared<Series>(metrics);
  try {
    impl->exposer = std::make_unique<prometheus::Exposer>(
        std::vector<std::string>{"listening_ports", address.ToString(), "num_threads", kThreads,
                                 "request_timeout_ms", kRequestTimeoutMs});
  } catch (const std::exception& error) {
    // The system's reason, unless whoever was there has gone since.
    if (absl::Status free = address.CheckFree(); !free.ok()) return free;
    if (address.ToString().starts_with('[')) {
      return absl::UnimplementedError(
          absl::StrCat("cannot listen on ", address.ToString(),
                       ": this system's civetweb, the HTTP server of prometheus-cpp, seems to be "
                       "built without IPv6 (Debian's is); give an IPv4 address"));
    }
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address.ToString(), ": ", error.what()));
  }
  impl->exposer->RegisterCollectable(impl->series);
  const std::vector<int> ports = impl->exposer->GetListeningPorts();
  if (ports.size() != 1) {
    return absl::UnavailableError("cannot listen on " + address.ToString());
  }
  std::string bound = address.WithPort(static_cast<uint16_t>(ports[0]));
  return std::unique_ptr<MetricsExporter>(new MetricsExporter(std::move(impl), std::move(bound)));
}

MetricsExporter::MetricsExporter(std::unique_ptr<Impl> impl, std::string address)
    : impl_(std::move(impl)), address_(std::move(address)) {}

MetricsExporter::~MetricsExporter() = default;

}  // namespace peerchunk
