// What Prometheus sees of peerchunkd as a process.
#include <regex>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/metrics_help.h"
#include "peerchunk/base/file_kind.h"
#include "tests/support/exposition.h"
#include "tests/support/http_get.h"
#include "tests/support/tool_fixture.h"

namespace peerchunk {
namespace {

using test::DaemonProcess;
using test::Exposition;
using test::Finished;
using test::HttpGet;
using test::kSlowBase;
using test::operator+;
using test::Peerchunkd;
using test::RunProgram;
using testing::HasSubstr;
using testing::Not;

const std::vector<std::string> kMetrics = {"--metrics-address", "127.0.0.1:0"};

class PeerchunkdMetricsTest : public test::ToolFixture {
 protected:
  // What it said when it started: "metrics at http://ADDRESS/metrics (...)".
  static std::string MetricsAddress(DaemonProcess& daemon) {
    const std::string begin = "\nmetrics at http://";
    const std::string& out = daemon.process().out();
    const size_t said = out.find(begin);
    EXPECT_NE(said, std::string::npos) << out;
    const size_t at = said + begin.size();
    return out.substr(at, out.find('/', at) - at);
  }
  static Exposition Scrape(DaemonProcess& daemon) {
    const test::HttpAnswer answer = HttpGet(MetricsAddress(daemon), "/metrics");
    EXPECT_EQ(answer.status, 200);
    return test::ParseExposition(answer.body);
  }

  // Every series is what DESIGN and Prometheus call for.
  static void ExpectOrder(const Exposition& page) {
    const std::set<std::string> allowed = {"source", "reason", "file", "outcome"};
    const std::regex code_or_words("[A-Z_]+|[a-z_]+");
    std::set<std::string> files;
    for (const FileKind kind : kAllFileKinds) files.emplace(FileName(kind));
    for (const auto& [series, number] : page.samples) {
      const auto& [name, labels] = series;
      if (name.starts_with("exposer_")) continue;  // prometheus-cpp's, about itself.
      EXPECT_FALSE(MetricHelp(name).empty()) << name;
      EXPECT_EQ(page.help.at(name), MetricHelp(name));
      EXPECT_EQ(page.type.at(name), name.ends_with("_total") ? "counter" : "gauge") << name;
      for (const auto& [label, text] : labels) {
        EXPECT_TRUE(allowed.contains(label)) << name << " has a label " << label;
        EXPECT_TRUE(label == "file" ? files.contains(text) : std::regex_match(text, code_or_words))
            << name << ": " << label << "=" << text;
      }
    }
  }
};

TEST_F(PeerchunkdMetricsTest, EverySeriesOfWorkingNodesFollowsTheRules) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase + kMetrics);
  DaemonProcess b(Path("b"), Path("base"), kMetrics);
  EXPECT_EQ(Scrape(a).Value("peerchunk_served_bytes_total"), 0);
  const test::TestBuild build = PauseOn(a);
  b.Json({"fetch", build.id.ToString(), "--source", a.address(), "--out", Path("got")});
  ExpectFetched(build, "got");
  EXPECT_EQ(
      b.Tool({"resume", "aaaaaaaa-0000-4000-8000-000000000001", "--source", a.address()}).exit_code,
      1);
  Durable(b, PauseOn(b, {.seed = 2}));

  const Exposition source = Scrape(a);
  ExpectOrder(source);
  EXPECT_GT(source.Value("peerchunk_served_bytes_total"), 0);
  const Exposition destination = Scrape(b);
  ExpectOrder(destination);
  EXPECT_GT(
      destination.Value("peerchunk_source_bytes_total", {{"source", "peer"}, {"file", "memfile"}}),
      0);
  EXPECT_EQ(destination.Value("peerchunk_upload_attempts_total", {{"outcome", "durable"}}), 1);
  // The tool shows the same ones.
  std::set<std::string> told;
  const nlohmann::json status = b.Json({"status"});
  for (const auto& sample : status["metrics"]) told.insert(std::string(sample["name"]));
  for (const auto& [series, number] : destination.samples) {
    if (series.first.starts_with("peerchunk_")) {
      EXPECT_TRUE(told.contains(series.first)) << series.first;
    }
  }
}

TEST_F(PeerchunkdMetricsTest, WithoutAnAddressNothingIsServed) {
  DaemonProcess daemon(Path("a"), Path("base"));
  EXPECT_THAT(daemon.process().out(), Not(HasSubstr("metrics at")));
}

TEST_F(PeerchunkdMetricsTest, APortInUseIsNamedAndNothingIsLeftBehind) {
  DaemonProcess daemon(Path("a"), Path("base"), kMetrics);
  for (const std::string& taken : {MetricsAddress(daemon), daemon.address()}) {
    const Finished second = RunProgram(Peerchunkd(
        {"--data-folder", Path("b"), "--listen", "127.0.0.1:0", "--metrics-address", taken}));
    EXPECT_EQ(second.exit_code, 1);
    EXPECT_THAT(second.err, HasSubstr("--metrics-address: cannot listen on " + taken));
    EXPECT_FALSE(std::filesystem::exists(Path("b")));
  }
}

TEST_F(PeerchunkdMetricsTest, AnAddressThatIsNotNumericIsRefused) {
  const Finished refused =
      RunProgram(Peerchunkd({"--data-folder", Path("a"), "--listen", "127.0.0.1:0",
                             "--metrics-address", "localhost:9464"}));
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err,
              HasSubstr("--metrics-address: 'localhost:9464' is not a numeric address"));
  EXPECT_FALSE(std::filesystem::exists(Path("a")));
}

TEST_F(PeerchunkdMetricsTest, BeyondLoopbackItSaysThatItIsPlaintext) {
  DaemonProcess daemon(Path("a"), Path("base"), {"--metrics-address", "0.0.0.0:0"});
  EXPECT_THAT(daemon.process().out(), HasSubstr("/metrics (PLAINTEXT)"));
}

TEST_F(PeerchunkdMetricsTest, ADrainCanBeWatched) {
  DaemonProcess daemon(Path("a"), Path("base"),
                       kSlowBase + kMetrics + std::vector<std::string>{"--drain-timeout", "inf"});
  PauseOn(daemon);
  daemon.process().Signal(SIGTERM);
  daemon.process().WaitForLine("draining");
  EXPECT_GT(Scrape(daemon).Value("process_open_fds"), 0);
  daemon.process().Signal(SIGTERM);
  EXPECT_EQ(daemon.process().Wait(), 3);
  EXPECT_EQ(HttpGet(MetricsAddress(daemon), "/metrics").status, 0);
}

}  // namespace
}  // namespace peerchunk
