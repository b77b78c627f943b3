#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "peerchunk/base/mutex.h"

namespace peerchunk {

// A number that only rises. Add is one relaxed atomic: fit for any hot path.
class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// A number that rises and falls.
class Gauge {
 public:
  void Add(int64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  void Set(int64_t n) { value_.store(n, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

// Name and value of one label, e.g. {"source", "peer"}. Labels are limited to source, reason, file
// and outcome, so the number of series stays small.
using MetricLabels = std::vector<std::pair<std::string, std::string>>;

struct MetricSample {
  std::string name;  // peerchunk_<noun>_<unit>[_total]
  MetricLabels labels;
  double value = 0;
  bool is_counter = true;
};

// Where a process keeps its counters. Owned by whoever assembles the library; a series lives as
// long as the registry. Thread-safe: look a series up once and keep the reference.
class Metrics {
 public:
  Counter& counter(std::string_view name, MetricLabels labels = {});
  Gauge& gauge(std::string_view name, MetricLabels labels = {});

  // A copy of every series, ordered by name and labels: what an exporter prints.
  std::vector<MetricSample> Snapshot() const;
  // The value of one counter, 0 when it was never used. For tests and tables.
  uint64_t CounterValue(std::string_view name, const MetricLabels& labels = {}) const;

 private:
  using Key = std::pair<std::string, MetricLabels>;
  mutable Mutex mutex_;
  std::map<Key, Counter> counters_ PEERCHUNK_GUARDED_BY(mutex_);  // std::map: stable addresses.
  std::map<Key, Gauge> gauges_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
