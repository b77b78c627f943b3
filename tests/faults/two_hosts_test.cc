// The source on a host of its own, with a real network between: rates, loss, a pulled cable, a
// hole.
#include "tests/support/two_hosts.h"

#include "tests/faults/fault_fixture.h"

namespace peerchunk::test {
namespace {

const TwoHosts* hosts = nullptr;

// Before any test, while this program has one thread: the ones it makes later live in the reader's
// namespace too.
class TwoHostsEnvironment final : public testing::Environment {
 public:
  void SetUp() override {
    made_ = TwoHosts::Enter();
    hosts = made_.get();
  }
  void TearDown() override {
    hosts = nullptr;
    made_.reset();
  }

 private:
  std::unique_ptr<TwoHosts> made_;
};
[[maybe_unused]] testing::Environment* const environment =
    testing::AddGlobalTestEnvironment(new TwoHostsEnvironment());

class TwoHostsTest : public FaultsTest {
 protected:
  void SetUp() override {
    if (!hosts->why_not().empty()) GTEST_SKIP() << "no second host: " << hosts->why_not();
    const std::string folder = Path("source");
    source_ = std::make_unique<ChildProcess>(hosts->OnSource(
        Peerchunkd({"--data-folder", folder, "--base", Path("source-base"), "--upload-rate",
                    "64KiB", "--listen", std::string(TwoHosts::kSource) + ":0",
                    "--insecure-plaintext", "--peer-network", "10.91.0.0/24"})));
    const std::string line = source_->WaitForLine("listening on ");
    address_ = line.substr(0, line.find(' '));
    source_->WaitForLine("ready");
    const Finished paused = RunProgram(Peerchunk({"--control", folder + "/control.sock", "pause",
                                                  "--folder", Large().folder.PathOf("snapshot")}));
    ASSERT_EQ(paused.exit_code, 0) << paused.err;
  }
  void TearDown() override {
    if (!hosts->why_not().empty()) return;
    hosts->SetLink(true);
    hosts->ClearTraffic();
  }

  // Reads the whole; `what` happens once `percent` of it has come to the reader.
  ReadOutcome ReadUntil(const FaultReader& reader, uint64_t percent,
                        const std::function<void()>& what) {
    bool happened = false;
    return reader.Read([&](uint64_t reached) {
      if (happened || reached < FileSize() * percent / 100) return;
      happened = true;
      what();
    });
  }

  std::unique_ptr<ChildProcess> source_;
  std::string address_;
};

// 25 MB/s: the network holds little, and half way is half way.
constexpr char kRate[] = "400mbit";

TEST_F(TwoHostsTest, HealthyReadOverAThinLineIsLeftAlone) {
  ASSERT_TRUE(hosts->LimitRate("800mbit"));
  const FaultReader reader(Build(), {address_}, ReaderOptions(PatientBudgets()));
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "thin_line");
  EXPECT_EQ(outcome.bytes.peer, FileSize());
}

TEST_F(TwoHostsTest, SigkillHalfWay) {
  ASSERT_TRUE(hosts->LimitRate(kRate));
  const FaultReader reader(Build(), {address_}, ReaderOptions(PatientBudgets()));
  const ReadOutcome outcome = ReadUntil(reader, 50, [&] { source_->Signal(SIGKILL); });
  ExpectWhole(outcome, "two_hosts_sigkill_at_50");
  EXPECT_EQ(reader.Fallbacks("unreachable"), 1u);
  EXPECT_GE(outcome.bytes.peer, FileSize() / 2);
  EXPECT_GT(outcome.bytes.base, 0u);
}

TEST_F(TwoHostsTest, SigstopHalfWay) {
  ASSERT_TRUE(hosts->LimitRate(kRate));
  const FaultReader reader(Build(), {address_}, ReaderOptions(ShortBudgets()));
  const ReadOutcome outcome = ReadUntil(reader, 50, [&] { source_->Signal(SIGSTOP); });
  ExpectWhole(outcome, "two_hosts_sigstop_at_50");
  EXPECT_EQ(reader.Fallbacks("stall"), 1u);
  EXPECT_GT(outcome.bytes.base, 0u);
}

// The host is gone without a word: no reset tells the reader.
TEST_F(TwoHostsTest, CablePulledHalfWay) {
  ASSERT_TRUE(hosts->LimitRate(kRate));
  const FaultReader reader(Build(), {address_}, ReaderOptions(ShortBudgets()));
  const ReadOutcome outcome = ReadUntil(reader, 50, [&] { hosts->SetLink(false); });
  ExpectWhole(outcome, "cable_pulled_at_50");
  EXPECT_EQ(reader.Fallbacks("stall"), 1u);
  EXPECT_GT(outcome.bytes.base, 0u);
}

TEST_F(TwoHostsTest, CablePulledWhileTheBaseIsSlow) {
  ASSERT_TRUE(hosts->LimitRate(kRate));
  FaultReader::Options options = ReaderOptions(ShortBudgets());
  options.base_bytes_per_second = 64 * kMiB;
  const FaultReader reader(Build(), {address_}, options);
  ExpectWhole(ReadUntil(reader, 50, [&] { hosts->SetLink(false); }),
              "cable_pulled_at_50_slow_base");
  EXPECT_EQ(reader.Fallbacks("stall"), 1u);
}

TEST_F(TwoHostsTest, LossOfOnePercentIsNoFault) {
  if (!hosts->LoseOneIn(100)) GTEST_SKIP() << "tc has no bpf filter here";
  const FaultReader reader(Build(), {address_}, ReaderOptions(PatientBudgets()));
  const uint64_t before = hosts->Retransmitted();
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "loss_1_percent");
  const uint64_t again = hosts->Retransmitted() - before;
  Report("loss_1_percent_segments_sent_again", static_cast<double>(again));
  EXPECT_GT(again, 100u);
  EXPECT_EQ(outcome.bytes.peer, FileSize());
}

TEST_F(TwoHostsTest, LossOfOnePercentUnderPageReads) {
  if (!hosts->LoseOneIn(100)) GTEST_SKIP() << "tc has no bpf filter here";
  const FaultReader reader(Build(), {address_}, ReaderOptions(PeerBudgets()));
  const auto object = reader.Open();
  std::string page(4096, 'x');
  for (uint64_t i = 0; i < 500; ++i) {
    const uint64_t offset = i * 37 % (FileSize() / 4096) * 4096;
    ASSERT_OK(object->ReadAt(offset, absl::MakeSpan(page), {.deadline = FaultReader::Deadline()}));
    ASSERT_TRUE(page == Build().files.at(FileKind::kMemfile).substr(offset, page.size()));
  }
  EXPECT_EQ(reader.Bytes().peer + reader.Bytes().base, 500u * 4096);
  EXPECT_GT(reader.Bytes().peer, reader.Bytes().base) << "a lost segment is no reason to leave";
  EXPECT_EQ(reader.Fallbacks(), reader.Fallbacks("hedge_won"));
  EXPECT_EQ(reader.Hedges("won") + reader.Hedges("lost") + reader.Hedges("failed") +
                reader.Hedges("dropped"),
            reader.Hedges("sent"));
  EXPECT_LE(static_cast<double>(reader.Hedges("sent")),
            PeerBudgets().hedge_burst + 500 * PeerBudgets().hedge_share);
  Report("loss_pages_from_base", static_cast<double>(reader.Bytes().base) / 4096);
  Report("loss_pages_hedged", static_cast<double>(reader.Hedges("sent")));
}

TEST_F(TwoHostsTest, BlackHoleInTheNetworkCostsTheHedgeDelay) {
  const FaultReader reader(Build(), {std::string(TwoHosts::kBlackHole) + ":7070"},
                           ReaderOptions(PatientBudgets()));
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "routed_black_hole");
  EXPECT_EQ(outcome.bytes.peer, 0u);
  EXPECT_EQ(reader.Hedges("won"), 1u);
}

TEST_F(TwoHostsTest, BlackHoleInTheNetworkCostsTheDialBudgetWithoutHedges) {
  FaultReader::Options options = ReaderOptions(ShortBudgets());
  options.hedges = false;
  const FaultReader reader(Build(), {std::string(TwoHosts::kBlackHole) + ":7070"}, options);
  ExpectWhole(reader.Read(), "routed_black_hole_without_hedges");
  EXPECT_EQ(reader.Fallbacks("dial_timeout"), 1u);
}

// The tool, as a process, from the source to the base.
TEST_F(TwoHostsTest, FetchGoesOnFromTheBaseWhenTheCableIsPulled) {
  ASSERT_TRUE(hosts->LimitRate(kRate));
  ChildProcess fetch(
      Peerchunk({"--json", "fetch", Build().id.ToString(), "--base", Large().folder.PathOf("base"),
                 "--source", address_, "--out", Path("got"), "--insecure-plaintext"}));
  const auto written = [&]() -> uint64_t {
    std::error_code error;
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(Path("got"), error)) {
      bytes += entry.file_size(error);
    }
    return bytes;
  };
  while (written() < FileSize() / 2) sched_yield();
  hosts->SetLink(false);
  EXPECT_EQ(fetch.Wait(), 0) << fetch.err();
  ExpectFetched(Build(), "got");
  const nlohmann::json json = nlohmann::json::parse(fetch.out());
  EXPECT_GE(json["bytes_from_peer"], FileSize() / 2);
  EXPECT_GT(json["bytes_from_base"], 0u);
  Report("fetch_cable_pulled_ms", 1000 * json["seconds"].get<double>());
}

}  // namespace
}  // namespace peerchunk::test
