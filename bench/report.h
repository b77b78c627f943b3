#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "bench/running.h"

namespace peerchunk::bench {

// One kind of work, done in rounds in which the contenders take turns.
struct Measurement {
  enum class Kind {
    kBulk,
    kReads,
    kUnderBulk,  // Rows come in pairs: reads alone, then the same during a bulk read.
    kMemory,     // Rows: one server at rest, then at work.
  };
  struct Row {
    std::string name;
    std::vector<Outcome> rounds;
  };

  std::string id;     // "bulk/file/zeros-38/streams-1"
  std::string title;  // For people.
  Kind kind = Kind::kBulk;
  double gib = 0;  // What is moved in a round; not for reads.
  // The first is ours. Empty rounds: not something that this contender does, or it failed.
  std::vector<Row> rows;
};

enum class Figure {
  kRate,  // GiB/s or reads/s
  kP50,   // us
  kP99,
  kClientCpu,  // Seconds per GiB
  kServerCpu,
  kClientMib,  // Resident, at most
  kServerMib,
};
// One value per round.
std::vector<double> Values(const Measurement& measurement, const Measurement::Row& row,
                           Figure figure);

// The middle of some values, and how far they reach. All 0 when there are none.
struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};
Spread SpreadOf(std::vector<double> values);

// Round by round, so that a slow moment of the machine hits both: how many times `theirs` is in
// `ours`.
Spread RatioOf(const std::vector<double>& ours, const std::vector<double>& theirs);

// What the last column of the table has: our rate against this row's; where rows come in pairs, the
// p99 of the second against the first's. No median: nothing to compare.
Spread Comparison(const Measurement& measurement, const Measurement::Row& row);

// A table for people.
std::string Table(const Measurement& measurement);
nlohmann::json Json(const Measurement& measurement);
nlohmann::json Json(const Spread& spread);

// Bars of every comparison with another contender, on a logarithmic scale around 1.
std::string Svg(const std::vector<Measurement>& measurements, const std::string& subtitle);

}  // namespace peerchunk::bench
