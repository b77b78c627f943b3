#include "bench/report.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "bench/format.h"

namespace peerchunk::bench {
namespace {

using Kind = Measurement::Kind;
using Row = Measurement::Row;

constexpr double kMibBytes = 1 << 20;

double Value(const Measurement& measurement, const Outcome& outcome, Figure figure) {
  const bool bulk = measurement.kind == Kind::kBulk || measurement.kind == Kind::kMemory;
  switch (figure) {
    case Figure::kRate:
      return bulk ? measurement.gib / outcome.seconds : outcome.reads.per_second;
    case Figure::kP50:
      return outcome.reads.p50_us;
    case Figure::kP99:
      return outcome.reads.p99_us;
    case Figure::kClientCpu:
      return outcome.client_cpu_seconds / measurement.gib;
    case Figure::kServerCpu:
      return outcome.server_cpu_seconds / measurement.gib;
    case Figure::kClientMib:
      return static_cast<double>(outcome.client_bytes) / kMibBytes;
    case Figure::kServerMib:
      return static_cast<double>(outcome.server_bytes) / kMibBytes;
  }
  return 0;
}

double MedianOf(const Measurement& measurement, const Row& row, Figure figure) {
  return SpreadOf(Values(measurement, row, figure)).median;
}

std::string Heading(Kind kind) {
  switch (kind) {
    case Kind::kBulk:
      return Format("  %-22s %7s %-15s %13s %15s\n  %-22s %7s %-15s %6s %6s %8s %6s\n", "", "GiB/s",
                    "", "CPU s/GiB", "peak MiB", "", "median", "least - most", "client", "server",
                    "client", "server");
    case Kind::kReads:
    case Kind::kUnderBulk:
      return Format("  %-32s %8s %-19s %8s %8s\n", "", "reads/s", "least - most", "p50 us",
                    "p99 us");
    case Kind::kMemory:
      return Format("  %-32s %8s\n", "", "peak MiB");
  }
  return "";
}

std::string Figures(const Measurement& measurement, const Row& row) {
  const auto median = [&](Figure figure) { return MedianOf(measurement, row, figure); };
  const Spread rate = SpreadOf(Values(measurement, row, Figure::kRate));
  switch (measurement.kind) {
    case Kind::kBulk:
      return Format("  %-22s %7.2f %-15s %6.2f %6.2f %8.0f %6.0f", row.name.c_str(), rate.median,
                    Format("%.2f - %.2f", rate.least, rate.most).c_str(),
                    median(Figure::kClientCpu), median(Figure::kServerCpu),
                    median(Figure::kClientMib), median(Figure::kServerMib));
    case Kind::kReads:
    case Kind::kUnderBulk:
      return Format("  %-32s %8.0f %-19s %8.0f %8.0f", row.name.c_str(), rate.median,
                    Format("%.0f - %.0f", rate.least, rate.most).c_str(), median(Figure::kP50),
                    median(Figure::kP99));
    case Kind::kMemory:
      return Format("  %-32s %8.0f", row.name.c_str(), median(Figure::kServerMib));
  }
  return "";
}

}  // namespace

std::vector<double> Values(const Measurement& measurement, const Row& row, Figure figure) {
  std::vector<double> values;
  for (const Outcome& outcome : row.rounds) values.push_back(Value(measurement, outcome, figure));
  return values;
}

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {.median = median, .least = values.front(), .most = values.back()};
}

Spread RatioOf(const std::vector<double>& ours, const std::vector<double>& theirs) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
    ratios.push_back(ours[i] / theirs[i]);
  }
  return SpreadOf(std::move(ratios));
}

Spread Comparison(const Measurement& measurement, const Row& row) {
  const auto index = static_cast<size_t>(&row - measurement.rows.data());
  switch (measurement.kind) {
    case Kind::kBulk:
    case Kind::kReads:
      if (index == 0) return {};
      return RatioOf(Values(measurement, measurement.rows.front(), Figure::kRate),
                     Values(measurement, row, Figure::kRate));
    case Kind::kUnderBulk:
      if (index % 2 == 0) return {};
      return RatioOf(Values(measurement, row, Figure::kP99),
                     Values(measurement, measurement.rows[index - 1], Figure::kP99));
    case Kind::kMemory:
      return {};
  }
  return {};
}

std::string Table(const Measurement& measurement) {
  std::string out = "\n" + measurement.title + "\n" + Heading(measurement.kind);
  for (const Row& row : measurement.rows) {
    if (row.rounds.empty()) continue;
    out += Figures(measurement, row);
    const Spread ratio = Comparison(measurement, row);
    if (ratio.median > 0) {
      out += Format("   %s %.2f (%.2f - %.2f)",
                    measurement.kind == Kind::kUnderBulk ? "p99 against alone" : "ours / this",
                    ratio.median, ratio.least, ratio.most);
    }
    out += "\n";
  }
  return out;
}

nlohmann::json Json(const Spread& spread) {
  return {{"median", spread.median}, {"least", spread.least}, {"most", spread.most}};
}

nlohmann::json Json(const Measurement& measurement) {
  const bool bulk = measurement.kind == Kind::kBulk || measurement.kind == Kind::kMemory;
  nlohmann::json rows = nlohmann::json::array();
  for (const Row& row : measurement.rows) {
    if (row.rounds.empty()) continue;
    nlohmann::json json = {{"name", row.name}};
    const auto add = [&](const char* name, Figure figure) {
      const std::vector<double> values = Values(measurement, row, figure);
      json[name] = Json(SpreadOf(values));
      json[name]["rounds"] = values;
    };
    add("client_mib", Figure::kClientMib);
    add("server_mib", Figure::kServerMib);
    if (bulk) {
      add("gib_per_second", Figure::kRate);
      add("client_cpu_seconds_per_gib", Figure::kClientCpu);
      add("server_cpu_seconds_per_gib", Figure::kServerCpu);
    } else {
      add("reads_per_second", Figure::kRate);
      add("p50_us", Figure::kP50);
      add("p99_us", Figure::kP99);
    }
    const Spread ratio = Comparison(measurement, row);
    if (ratio.median > 0) {
      json[measurement.kind == Kind::kUnderBulk ? "p99_against_alone" : "ours_divided_by_this"] =
          Json(ratio);
    }
    rows.push_back(std::move(json));
  }
  return {{"id", measurement.id}, {"title", measurement.title}, {"rows", rows}};
}

}  // namespace peerchunk::bench
