#include <algorithm>
#include <cmath>
#include <map>

#include "bench/format.h"
#include "bench/report.h"

namespace peerchunk::bench {
namespace {

constexpr int kLabelWidth = 170;
constexpr int kPlotWidth = 560;
constexpr int kValueWidth = 150;
constexpr int kWidth = kLabelWidth + kPlotWidth + kValueWidth;
constexpr int kTop = 96;
constexpr int kBar = 16;
constexpr int kGap = 30;  // Above a group, where its title stands.
constexpr double kLeast = 0.1;
constexpr double kMost = 100;

double XOf(double ratio) {
  const double clamped = std::clamp(ratio, kLeast, kMost);
  return kLabelWidth + kPlotWidth * std::log(clamped / kLeast) / std::log(kMost / kLeast);
}

// Names and titles are ours: none has a character that XML would need escaped but these.
std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string Text(double x, double y, const char* style, const std::string& text) {
  return Format("<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, style) + Escaped(text) +
         "</text>\n";
}

std::string Line(double x1, double y1, double x2, double y2, const char* style) {
  return Format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1, y1,
                x2, y2, style);
}

// A bar from 1 to the median, and a whisker from the least to the most.
std::string Bar(double y, const std::string& name, const Spread& ratio) {
  const double one = XOf(1);
  const double end = XOf(ratio.median);
  std::string out = Text(kLabelWidth - 8, y + 12, "label", name);
  out += Format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" class=\"%s\"/>\n",
                std::min(one, end), y + 2, std::max(std::abs(end - one), 1.0), kBar - 4,
                ratio.median >= 1 ? "more" : "less");
  out += Line(XOf(ratio.least), y + kBar / 2.0, XOf(ratio.most), y + kBar / 2.0, "whisker");
  out += Text(kLabelWidth + kPlotWidth + 8, y + 12, "value",
              Format("%.2f (%.2f - %.2f)", ratio.median, ratio.least, ratio.most));
  return out;
}

bool IsPlotted(const Measurement& measurement) {
  return measurement.kind == Measurement::Kind::kBulk ||
         measurement.kind == Measurement::Kind::kReads;
}

}  // namespace

std::string Svg(const std::vector<Measurement>& measurements, const std::string& subtitle) {
  std::string bars;
  double y = kTop;
  for (const Measurement& measurement : measurements) {
    if (!IsPlotted(measurement)) continue;
    y += kGap;
    bars += Text(kLabelWidth, y - 6, "title", measurement.title);
    for (const Measurement::Row& row : measurement.rows) {
      const Spread ratio = Comparison(measurement, row);
      if (ratio.median == 0) continue;
      bars += Bar(y, row.name, ratio);
      y += kBar;
    }
  }
  std::string axis;
  for (const double tick : {0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0}) {
    axis += Line(XOf(tick), kTop, XOf(tick), y + 8, tick == 1 ? "one" : "grid");
    axis += Text(XOf(tick), kTop - 6, "tick", Format("%g", tick));
  }
  return Format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" ", kWidth,
                y + 24) +
         Format("viewBox=\"0 0 %d %.0f\">\n", kWidth, y + 24) +
         "<style>text{font:12px sans-serif;fill:#222}.head{font-size:18px;font-weight:bold}"
         ".title{font-weight:bold}.label{text-anchor:end}.tick{text-anchor:middle;fill:#666}"
         ".more{fill:#2a7f62}.less{fill:#c8553d}.whisker{stroke:#222;stroke-width:1.5}"
         ".grid{stroke:#ddd}.one{stroke:#222;stroke-width:1.5}</style>\n"
         "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n" +
         Text(16, 28, "head", "peerchunk: how many times as fast") +
         Text(16, 48, "sub",
              "rate of peerchunk divided by that of the party named at the left; "
              "median over rounds, whiskers from least to most") +
         Text(16, 66, "sub", subtitle) + axis + bars + "</svg>\n";
}

}  // namespace peerchunk::bench
