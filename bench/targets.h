#pragma once

#include <string>
#include <vector>

#include "bench/report.h"

namespace peerchunk::bench {

// What the project wants to reach, and what was measured.
struct Target {
  std::string work;
  std::string against;
  double wanted = 0;
  bool at_most = false;  // Else at least.
  Spread measured;
  bool reached() const { return at_most ? measured.median <= wanted : measured.median >= wanted; }
};

// Those whose work was among the measurements.
std::vector<Target> TargetsIn(const std::vector<Measurement>& measurements);

std::string Table(const std::vector<Target>& targets);
nlohmann::json Json(const std::vector<Target>& targets);

}  // namespace peerchunk::bench
