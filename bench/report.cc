#include "bench/report.h"

#include <algorithm>
#include <cstdio>

#include <nlohmann/json.hpp>

namespace peerchunk::bench {
namespace {

std::vector<double> Ratios(const Measurement::Row& ours, const Measurement::Row& theirs) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(ours.values.size(), theirs.values.size()); ++i) {
    ratios.push_back(ours.values[i] / theirs.values[i]);
  }
  return ratios;
}

std::string Format(const char* format, auto... values) {
  char text[160];
  std::snprintf(text, sizeof(text), format, values...);
  return text;
}

}  // namespace

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double Ratio(const Measurement& measurement, const std::string& contender) {
  for (const Measurement::Row& row : measurement.rows) {
    if (row.contender == contender) return Median(Ratios(measurement.rows.front(), row));
  }
  return 0;
}

std::string Table(const std::vector<Measurement>& measurements) {
  std::string out;
  for (const Measurement& measurement : measurements) {
    out += "\n" + measurement.work + "\n";
    for (const Measurement::Row& row : measurement.rows) {
      out += Format("  %-28s", row.contender.c_str());
      if (row.values.empty()) {
        out += " skipped: " + row.skipped + "\n";
        continue;
      }
      const auto [least, most] = std::minmax_element(row.values.begin(), row.values.end());
      out += Format(" %10.2f %-8s (%.2f to %.2f)", Median(row.values), measurement.unit.c_str(),
                    *least, *most);
      if (&row != &measurement.rows.front()) {
        const std::vector<double> ratios = Ratios(measurement.rows.front(), row);
        const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
        out += Format("   ours: %.2f times (%.2f to %.2f)", Median(ratios), *low, *high);
      }
      out += "\n";
    }
  }
  return out;
}

std::string Json(const std::vector<Measurement>& measurements) {
  nlohmann::json all = nlohmann::json::array();
  for (const Measurement& measurement : measurements) {
    nlohmann::json rows = nlohmann::json::array();
    for (const Measurement::Row& row : measurement.rows) {
      rows.push_back({{"contender", row.contender},
                      {"values", row.values},
                      {"median", Median(row.values)},
                      {"ours_divided_by_this", Ratio(measurement, row.contender)},
                      {"skipped", row.skipped}});
    }
    all.push_back({{"work", measurement.work}, {"unit", measurement.unit}, {"rows", rows}});
  }
  return all.dump(2) + "\n";
}

}  // namespace peerchunk::bench
