#include "peerchunk/base/metrics.h"

#include <algorithm>
#include <tuple>

namespace peerchunk {
namespace {

MetricLabels Sorted(MetricLabels labels) {
  std::sort(labels.begin(), labels.end());
  return labels;
}

}  // namespace

Counter& Metrics::counter(std::string_view name, MetricLabels labels) {
  Key key(std::string(name), Sorted(std::move(labels)));
  const MutexLock lock(mutex_);
  return counters_.try_emplace(std::move(key)).first->second;
}

Gauge& Metrics::gauge(std::string_view name, MetricLabels labels) {
  Key key(std::string(name), Sorted(std::move(labels)));
  const MutexLock lock(mutex_);
  return gauges_.try_emplace(std::move(key)).first->second;
}

std::vector<MetricSample> Metrics::Snapshot() const {
  std::vector<MetricSample> samples;
  {
    const MutexLock lock(mutex_);
    samples.reserve(counters_.size() + gauges_.size());
    for (const auto& [key, counter] : counters_) {
      samples.push_back({key.first, key.second, static_cast<double>(counter.value()), true});
    }
    for (const auto& [key, gauge] : gauges_) {
      samples.push_back({key.first, key.second, static_cast<double>(gauge.value()), false});
    }
  }
  std::stable_sort(samples.begin(), samples.end(),
                   [](const MetricSample& a, const MetricSample& b) {
                     return std::tie(a.name, a.labels) < std::tie(b.name, b.labels);
                   });
  return samples;
}

uint64_t Metrics::CounterValue(std::string_view name, const MetricLabels& labels) const {
  const Key key(std::string(name), Sorted(labels));
  const MutexLock lock(mutex_);
  const auto found = counters_.find(key);
  return found == counters_.end() ? 0 : found->second.value();
}

}  // namespace peerchunk
