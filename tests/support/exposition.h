#pragma once

#include <map>
#include <string>
#include <utility>

#include "peerchunk/base/metrics.h"

namespace peerchunk::test {

// A page in Prometheus's text format, read strictly: each sample comes after the HELP and the TYPE
// of its name, and no series comes twice.
struct Exposition {
  std::map<std::string, std::string> help;
  std::map<std::string, std::string> type;
  // Of counters and gauges; quantiles and sums of other types are in it under their own names.
  std::map<std::pair<std::string, MetricLabels>, double> samples;

  double Value(const std::string& name, MetricLabels labels = {}) const;
  // Over all labels.
  double Sum(const std::string& name) const;
};

// What is wrong with it fails the test.
Exposition ParseExposition(const std::string& text);

}  // namespace peerchunk::test
