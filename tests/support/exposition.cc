#include "tests/support/exposition.h"

#include <algorithm>
#include <sstream>

#include <gtest/gtest.h>

namespace peerchunk::test {
namespace {

// `rest`: name="value",name="value"} and what follows. Gives the labels, and what follows.
MetricLabels ParseLabels(const std::string& line, size_t& at) {
  MetricLabels labels;
  while (at < line.size() && line[at] != '}') {
    if (line[at] == ',') ++at;
    const size_t equals = line.find("=\"", at);
    if (equals == std::string::npos) {
      ADD_FAILURE() << "no value of a label in: " << line;
      break;
    }
    const std::string name = line.substr(at, equals - at);
    std::string value;
    for (at = equals + 2; at < line.size() && line[at] != '"'; ++at) {
      if (line[at] != '\\') {
        value += line[at];
        continue;
      }
      ++at;
      value += at < line.size() && line[at] == 'n' ? '\n' : line[at];
    }
    ++at;
    labels.emplace_back(name, value);
  }
  ++at;
  std::sort(labels.begin(), labels.end());
  return labels;
}

// A summary's and a histogram's samples have suffixes.
std::string FamilyOf(const Exposition& page, const std::string& name) {
  if (page.type.contains(name)) return name;
  for (const std::string suffix : {"_count", "_sum", "_bucket"}) {
    if (!name.ends_with(suffix)) continue;
    std::string family = name.substr(0, name.size() - suffix.size());
    if (page.type.contains(family)) return family;
  }
  return name;
}

}  // namespace

double Exposition::Value(const std::string& name, MetricLabels labels) const {
  std::sort(labels.begin(), labels.end());
  const auto found = samples.find({name, labels});
  if (found != samples.end()) return found->second;
  ADD_FAILURE() << "no series " << name << " with these labels";
  return 0;
}

double Exposition::Sum(const std::string& name) const {
  double sum = 0;
  for (const auto& [series, value] : samples) sum += series.first == name ? value : 0;
  return sum;
}

Exposition ParseExposition(const std::string& text) {
  Exposition page;
  EXPECT_TRUE(text.ends_with('\n')) << "the last line has to end";
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    for (auto* const about : {&page.help, &page.type}) {
      const std::string prefix = about == &page.help ? "# HELP " : "# TYPE ";
      if (!line.starts_with(prefix)) continue;
      const size_t space = line.find(' ', prefix.size());
      const std::string name = line.substr(prefix.size(), space - prefix.size());
      EXPECT_TRUE(about->emplace(name, line.substr(space + 1)).second) << "twice: " << line;
    }
    if (line.starts_with('#')) continue;
    size_t at = line.find_first_of("{ ");
    const std::string name = line.substr(0, at);
    MetricLabels labels;
    if (at < line.size() && line[at] == '{') labels = ParseLabels(line, ++at);
    EXPECT_TRUE(page.type.contains(FamilyOf(page, name))) << "no type before: " << line;
    EXPECT_TRUE(page.help.contains(FamilyOf(page, name))) << "no help before: " << line;
    const double value = std::stod(line.substr(std::min(at, line.size())));
    EXPECT_TRUE(page.samples.emplace(std::pair(name, labels), value).second) << "twice: " << line;
  }
  return page;
}

}  // namespace peerchunk::test
