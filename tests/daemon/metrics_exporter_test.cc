#include "daemon/metrics_exporter.h"

#include <sys/resource.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/metrics_help.h"
#include "peerchunk/base/range.h"
#include "tests/support/exposition.h"
#include "tests/support/http_get.h"

namespace peerchunk {
namespace {

using test::Exposition;
using test::HttpAnswer;
using test::HttpGet;
using testing::AllOf;
using testing::Ge;
using testing::HasSubstr;
using testing::Le;

class MetricsExporterTest : public testing::Test {
 protected:
  static absl::StatusOr<std::unique_ptr<MetricsExporter>> Start(const Metrics& metrics,
                                                                const std::string& address) {
    const absl::StatusOr<ListenAddress> parsed = ListenAddress::Parse(address);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return MetricsExporter::Start(&metrics, *parsed);
  }
  Exposition Scrape() {
    return test::ParseExposition(HttpGet(exporter_->address(), "/metrics").body);
  }

  Metrics metrics_;
  std::unique_ptr<MetricsExporter> exporter_ = *Start(metrics_, "127.0.0.1:0");
};

TEST_F(MetricsExporterTest, ServesCountersAndGaugesWithTypeAndHelp) {
  metrics_.counter("peerchunk_served_bytes_total").Add(5);
  metrics_.gauge("peerchunk_served_in_flight_bytes").Set(-7);
  metrics_.counter("peerchunk_source_bytes_total", {{"source", "peer"}, {"file", "memfile"}})
      .Add(2);
  metrics_.counter("peerchunk_source_bytes_total", {{"source", "base"}, {"file", "memfile"}})
      .Add(3);
  const HttpAnswer answer = HttpGet(exporter_->address(), "/metrics");
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.headers.at("content-type"), HasSubstr("text/plain"));
  const Exposition page = test::ParseExposition(answer.body);
  EXPECT_EQ(page.Value("peerchunk_served_bytes_total"), 5);
  EXPECT_EQ(page.type.at("peerchunk_served_bytes_total"), "counter");
  EXPECT_EQ(page.help.at("peerchunk_served_bytes_total"), "Bytes sent to peers");
  EXPECT_EQ(page.Value("peerchunk_served_in_flight_bytes"), -7);
  EXPECT_EQ(page.type.at("peerchunk_served_in_flight_bytes"), "gauge");
  EXPECT_EQ(page.Value("peerchunk_source_bytes_total", {{"source", "peer"}, {"file", "memfile"}}),
            2);
  EXPECT_EQ(page.Sum("peerchunk_source_bytes_total"), 5);
  metrics_.counter("peerchunk_served_bytes_total").Add(1);
  EXPECT_EQ(Scrape().Value("peerchunk_served_bytes_total"), 6);
}

TEST_F(MetricsExporterTest, LargeCountersKeepTheirLastDigit) {
  metrics_.counter("peerchunk_served_bytes_total").Add(1'234'567'890'123'457);
  EXPECT_THAT(HttpGet(exporter_->address(), "/metrics").body,
              HasSubstr("\npeerchunk_served_bytes_total 1234567890123457\n"));
}

TEST_F(MetricsExporterTest, LabelValuesAreEscaped) {
  const MetricLabels labels = {{"reason", "a\"b\\c\nd"}};
  metrics_.counter("peerchunk_stalls_total", labels).Add(3);
  EXPECT_EQ(Scrape().Value("peerchunk_stalls_total", labels), 3);
}

TEST_F(MetricsExporterTest, TellsOfItsProcess) {
  const Exposition page = Scrape();
  EXPECT_EQ(page.type.at("process_cpu_seconds_total"), "counter");
  EXPECT_GT(page.Value("process_cpu_seconds_total"), 0);
  EXPECT_GT(page.Value("process_resident_memory_bytes"), kMiB);
  EXPECT_GT(page.Value("process_virtual_memory_bytes"),
            page.Value("process_resident_memory_bytes"));
  rlimit fds{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &fds), 0);
  EXPECT_EQ(page.Value("process_max_fds"), static_cast<double>(fds.rlim_cur));
  const double before = page.Value("process_open_fds");
  EXPECT_GT(before, 3);
  const std::ifstream more[3] = {std::ifstream("/dev/null"), std::ifstream("/dev/null"),
                                 std::ifstream("/dev/null")};
  EXPECT_GE(Scrape().Value("process_open_fds"), before + 2);
  EXPECT_LE(page.Value("process_start_time_seconds"), static_cast<double>(time(nullptr)) + 1);
  EXPECT_GT(page.Value("process_start_time_seconds"), 1e9);
}

TEST_F(MetricsExporterTest, ServesNothingElse) {
  EXPECT_EQ(HttpGet(exporter_->address(), "/").status, 404);
  EXPECT_EQ(HttpGet(exporter_->address(), "/../../etc/passwd").status / 100, 4);
}

TEST_F(MetricsExporterTest, AnAddressInUseIsNamed) {
  const auto second = Start(metrics_, exporter_->address());
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("cannot listen on " + exporter_->address()));
}

TEST_F(MetricsExporterTest, ListensOnIpv6OrSaysWhyNot) {
  const auto listen = ListenAddress::Parse("[::1]:0");
  if (!listen->CheckFree().ok()) GTEST_SKIP() << "this machine has no IPv6";
  const auto exporter = Start(metrics_, "[::1]:0");
  if (!exporter.ok()) {
    EXPECT_THAT(std::string(exporter.status().message()), HasSubstr("without IPv6"));
    return;
  }
  EXPECT_TRUE((*exporter)->address().starts_with("[::1]:"));
  EXPECT_EQ(HttpGet((*exporter)->address(), "/metrics").status, 200);
}

TEST_F(MetricsExporterTest, AClientThatSaysNothingDoesNotKeepItFromStopping) {
  const File silent = test::TcpConnect(exporter_->address());
  ASSERT_TRUE(silent.is_open());
  EXPECT_EQ(HttpGet(exporter_->address(), "/metrics").status, 200);
  const std::string address = exporter_->address();
  exporter_.reset();
  EXPECT_EQ(HttpGet(address, "/metrics").status, 0);
}

// The names between quotes in src/, those of the table, and those of the pages for people.
std::set<std::string> NamesIn(const std::filesystem::path& path, const std::regex& pattern) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  std::set<std::string> names;
  for (std::sregex_iterator found(all.begin(), all.end(), pattern), end; found != end; ++found) {
    names.insert((*found)[1]);
  }
  return names;
}

TEST(MetricsHelpTest, EverySeriesOfTheCodeHasHelpAndALineInTheDocsAndNoOther) {
  const std::filesystem::path tree = PEERCHUNK_TREE;
  std::set<std::string> counted;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(tree / "src")) {
    const std::string name = entry.path().filename();
    if (!entry.is_regular_file() || name == "metrics_help.cc") continue;
    counted.merge(NamesIn(entry.path(), std::regex("\"((?:peerchunk|process)_[a-z_]+)\"")));
  }
  std::set<std::string> helped;
  for (const auto& [name, help] : MetricHelpTable()) {
    EXPECT_TRUE(helped.insert(std::string(name)).second) << name << " comes twice";
    EXPECT_EQ(MetricHelp(name), help) << "not in the order of names: " << name;
    EXPECT_FALSE(help.empty()) << name;
    EXPECT_EQ(help.find_first_of("\\\n"), std::string_view::npos) << name;
  }
  EXPECT_EQ(helped, counted);
  EXPECT_TRUE(MetricHelp("peerchunk_no_such_total").empty());
  std::set<std::string> documented;
  for (const char* const page : {"docs/metrics.md", "docs/gcs.md"}) {
    documented.merge(NamesIn(tree / page, std::regex("`((?:peerchunk|process)_[a-z_]+)")));
  }
  EXPECT_EQ(documented, counted);
}

// peerchunk_<noun>_<unit>[_total]: what is counted ends the name, in the plural.
TEST(MetricsHelpTest, EveryNameFollowsTheRule) {
  const std::regex rule("peerchunk(_[a-z]+)*_[a-z]+s(_total)?");
  for (const auto& [name, help] : MetricHelpTable()) {
    if (name.starts_with("process_")) continue;  // Prometheus's own names.
    EXPECT_TRUE(std::regex_match(std::string(name), rule)) << name;
  }
}

}  // namespace
}  // namespace peerchunk
