#include "bench/targets.h"

#include <nlohmann/json.hpp>

#include "bench/format.h"

namespace peerchunk::bench {
namespace {

// Ratios of rates.
struct Wanted {
  const char* id;  // Of the measurement.
  const char* work;
  const char* against;  // The contender.
  double at_least;
};
constexpr Wanted kWanted[] = {
    {"bulk/memory/zeros-0/streams-1", "bulk, warm memory", kRawTcp, 0.75},
    {"bulk/memory/zeros-38/streams-1", "the same, 38 % zeros", kRawTcp, 0.85},
    {"bulk/file/zeros-0/streams-1", "bulk, fresh file", kNginxAndCurl, 1.15},
    {"bulk/file/zeros-38/streams-1", "the same, 38 % zeros", kNginxAndCurl, 1.8},
    {"bulk/allocated-file/zeros-0/streams-1", "bulk, preallocated file", kNbd, 1.6},
    {"bulk/allocated-file/zeros-38/streams-1", "the same, 38 % zeros", kNbd, 2.3},
    {"bulk/memory/zeros-0/streams-1", "bulk, warm memory", kNaivePort, 9},
    {"reads/4/depth-1", "4 KiB reads, depth 1", kRawTcp, 1.2},
    {"reads/4/depth-8", "4 KiB reads, depth 8", kRawTcp, 1},
    {"reads/4/depth-32", "4 KiB reads, depth 32", kRawTcp, 0.5},
    {"reads/4/depth-128", "4 KiB reads, depth 128", kRawTcp, 0.4},
    {"reads/4/depth-32", "4 KiB reads, depth 32", kNaivePort, 12},
};
constexpr double kMostServerMib = 96;
constexpr double kMostP99Ratio = 3;

Spread ServerMibAdded(const Measurement& memory) {
  const double idle = SpreadOf(Values(memory, memory.rows[0], Figure::kServerMib)).median;
  std::vector<double> added;
  for (const double mib : Values(memory, memory.rows[1], Figure::kServerMib)) {
    added.push_back(mib - idle);
  }
  return SpreadOf(std::move(added));
}

}  // namespace

std::vector<Target> TargetsIn(const std::vector<Measurement>& measurements) {
  std::vector<Target> targets;
  for (const Measurement& measurement : measurements) {
    for (const Measurement::Row& row : measurement.rows) {
      const Spread ratio = Comparison(measurement, row);
      if (ratio.median == 0) continue;
      for (const Wanted& wanted : kWanted) {
        if (wanted.id == measurement.id && wanted.against == row.name) {
          targets.push_back({wanted.work, wanted.against, wanted.at_least, false, ratio});
        }
      }
      const bool ours = &row == &measurement.rows.data()[1];
      if (measurement.kind == Measurement::Kind::kUnderBulk && ours) {
        targets.push_back(
            {"p99 of 4 KiB demand reads under bulk", "alone", kMostP99Ratio, true, ratio});
      }
    }
    if (measurement.kind == Measurement::Kind::kMemory) {
      targets.push_back({"MiB of server memory, 16 clients", "at rest", kMostServerMib, true,
                         ServerMibAdded(measurement)});
    }
  }
  return targets;
}

std::string Table(const std::vector<Target>& targets) {
  if (targets.empty()) return "";
  std::string out = "\ntargets\n";
  for (const Target& target : targets) {
    out += Format("  %-38s %-22s %8.2f (%.2f - %.2f)  wanted: at %s %-5g  %s\n",
                  target.work.c_str(), target.against.c_str(), target.measured.median,
                  target.measured.least, target.measured.most, target.at_most ? "most " : "least",
                  target.wanted, target.reached() ? "reached" : "NOT reached");
  }
  return out;
}

nlohmann::json Json(const std::vector<Target>& targets) {
  nlohmann::json all = nlohmann::json::array();
  for (const Target& target : targets) {
    all.push_back({{"work", target.work},
                   {"against", target.against},
                   {target.at_most ? "at_most" : "at_least", target.wanted},
                   {"measured", Json(target.measured)},
                   {"reached", target.reached()}});
  }
  return all;
}

}  // namespace peerchunk::bench
