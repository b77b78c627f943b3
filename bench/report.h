#pragma once

#include <string>
#include <vector>

namespace peerchunk::bench {

// One kind of work, measured over rounds in which the contenders take turns.
struct Measurement {
  std::string work;
  std::string unit;  // "GiB/s", "reads/s"
  struct Row {
    std::string contender;
    std::vector<double> values;  // One per round; more is better.
    std::string skipped;         // Why there are none.
  };
  std::vector<Row> rows;  // The first is ours: the others' ratios are ours divided by theirs.
};

double Median(std::vector<double> values);

// A table for people: medians with their range, and the median over rounds of the ratio of two
// measurements of the same round, so that a slow moment of the machine hits both.
std::string Table(const std::vector<Measurement>& measurements);
std::string Json(const std::vector<Measurement>& measurements);

// The ratio as in the table: ours against `contender`; 0 when there is none.
double Ratio(const Measurement& measurement, const std::string& contender);

}  // namespace peerchunk::bench
