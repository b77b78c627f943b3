// A source process that is killed, stopped or cut off from a reader, at a byte of its answer that
// is counted on the wire.
#include <thread>
#include <tuple>

#include "tests/faults/fault_fixture.h"
#include "tests/support/fault_proxy.h"

namespace peerchunk::test {
namespace {

class SourceDiesTest : public FaultsTest,
                       public testing::WithParamInterface<std::tuple<Transport, int>> {
 protected:
  SourceDiesTest() : FaultsTest(std::get<0>(GetParam())) {}

  static int Percent() { return std::get<1>(GetParam()); }
  // Reads through a proxy; once this test's percentage of the file has passed it, `what` happens
  // to the source, and only then more passes.
  ReadOutcome ReadWhile(const FaultReader& reader, FaultProxy& proxy,
                        const std::function<void()>& what) {
    reader.Greet();
    if (Percent() == 0) {
      what();
      return reader.Read();
    }
    proxy.HoldAfter(FileSize() * static_cast<uint64_t>(Percent()) / 100);
    std::thread fate([&] {
      proxy.AwaitHeld();
      what();
      proxy.Release();
    });
    const ReadOutcome outcome = reader.Read();
    fate.join();
    return outcome;
  }
  std::string Name(const std::string& what) const {
    return what + "_at_" + std::to_string(Percent());
  }
  // The peer gave what was counted: less at most one message, which was cut, more at most what the
  // kernel held of what the source had sent meanwhile. At 99 % that may be all of the rest.
  void ExpectShare(const ReadOutcome& outcome) const {
    constexpr uint64_t kKernelHolds = 3 * kMiB;
    const uint64_t counted = FileSize() * static_cast<uint64_t>(Percent()) / 100;
    EXPECT_GE(outcome.bytes.peer + kMiB + kMiB / 8, counted);
    if (Percent() < 99) {
      EXPECT_LE(outcome.bytes.peer, counted + kKernelHolds);
    }
  }
};

TEST_P(SourceDiesTest, SigkillCostsNoByte) {
  const auto source = StartSource();
  FaultProxy proxy(source->address());
  const FaultReader reader(Build(), {proxy.address()}, ReaderOptions(PatientBudgets()));
  const ReadOutcome outcome = ReadWhile(reader, proxy, [&] {
    source->process().Signal(SIGKILL);
    source->process().Wait();
  });
  ExpectWhole(outcome, Name("sigkill"));
  ExpectShare(outcome);
  const uint64_t left = outcome.bytes.peer < FileSize() ? 1 : 0;
  EXPECT_EQ(reader.Fallbacks("unreachable") + reader.Fallbacks("hedge_won"), left);
}

TEST_P(SourceDiesTest, SigstopCostsNoByteAndEndsWithTheStallBudget) {
  const auto source = StartSource();
  FaultProxy proxy(source->address());
  const FaultReader reader(Build(), {proxy.address()}, ReaderOptions(ShortBudgets()));
  const ReadOutcome outcome = ReadWhile(reader, proxy, [&] { source->process().Signal(SIGSTOP); });
  ExpectWhole(outcome, Name("sigstop"));
  ExpectShare(outcome);
  if (outcome.bytes.peer == 0) {  // Not a message came: the base is asked beside it.
    EXPECT_EQ(reader.Hedges("won"), 1u);
    EXPECT_EQ(reader.Fallbacks("hedge_won"), 1u);
  } else {
    const uint64_t left = outcome.bytes.peer < FileSize() ? 1 : 0;
    EXPECT_EQ(reader.Fallbacks("stall"), left);
    EXPECT_EQ(reader.metrics.CounterValue("peerchunk_stalls_total"), left);
  }
}

TEST_P(SourceDiesTest, StoppedSourceThatGoesOnIsUsedAgain) {
  const auto source = StartSource();
  FaultProxy proxy(source->address());
  PeerBudgets budgets = ShortBudgets();
  budgets.breaker_failures = 1;
  budgets.breaker_open = absl::ZeroDuration();  // The next read is the probe.
  FaultReader::Options options = ReaderOptions(budgets);
  options.hedges = false;
  const FaultReader reader(Build(), {proxy.address()}, options);
  const ReadOutcome outcome = ReadWhile(reader, proxy, [&] { source->process().Signal(SIGSTOP); });
  ExpectWhole(outcome, Name("stopped"));
  const uint64_t left = outcome.bytes.peer < FileSize() ? 1 : 0;
  EXPECT_EQ(reader.Breaker("open"), left);
  source->process().Signal(SIGCONT);
  // A daemon that was stopped answers again, and bytes of a real read close its breaker.
  ReadOutcome again;
  do {
    again = reader.Read();
    EXPECT_TRUE(again.identical) << again.status;
  } while (again.bytes.peer < FileSize());
  EXPECT_EQ(reader.Breaker("closed"), left);
}

TEST_P(SourceDiesTest, ConnectionCutGoesOnFromTheBase) {
  const auto source = StartSource();
  FaultProxy proxy(source->address());
  const FaultReader reader(Build(), {proxy.address()}, ReaderOptions(PatientBudgets()));
  const ReadOutcome outcome = ReadWhile(reader, proxy, [&] { proxy.Cut(); });
  ExpectWhole(outcome, Name("cut"));
  // Cut before the read began, the connection is made again.
  if (Percent() > 0) {
    EXPECT_EQ(reader.Fallbacks("unreachable"), 1u);
  }
  // The source lives, and is used again once it has been dialled again.
  ReadOutcome next;
  do {
    next = reader.Read();
    EXPECT_TRUE(next.identical) << next.status;
  } while (next.bytes.peer < FileSize());
}

TEST_P(SourceDiesTest, SigkillWhileTheBaseIsSlowTakesTheBasesTime) {
  const auto source = StartSource();
  FaultProxy proxy(source->address());
  FaultReader::Options options = ReaderOptions(PatientBudgets());
  options.base_bytes_per_second = 64 * kMiB;
  const FaultReader reader(Build(), {proxy.address()}, options);
  const ReadOutcome outcome = ReadWhile(reader, proxy, [&] {
    source->process().Signal(SIGKILL);
    source->process().Wait();
  });
  ExpectWhole(outcome, Name("sigkill_slow_base"));
  ExpectShare(outcome);
  EXPECT_EQ(reader.Fallbacks("unreachable") + reader.Fallbacks("hedge_won"), 1u);
  EXPECT_EQ(reader.Fallbacks("base_stalled") + reader.Fallbacks("base_failed"), 0u)
      << "slow is no fault";
}

std::string CaseName(const testing::TestParamInfo<std::tuple<Transport, int>>& info) {
  return NameOf(std::get<0>(info.param)) + "At" + std::to_string(std::get<1>(info.param));
}
INSTANTIATE_TEST_SUITE_P(OverHttp2, SourceDiesTest,
                         testing::Combine(testing::Values(Transport::kHttp2),
                                          testing::Values(0, 1, 50, 99)),
                         CaseName);
// The reader is the same from there on: half way is enough for this client.
INSTANTIATE_TEST_SUITE_P(OverGrpc, SourceDiesTest,
                         testing::Combine(testing::Values(Transport::kGrpc), testing::Values(50)),
                         CaseName);

}  // namespace
}  // namespace peerchunk::test
