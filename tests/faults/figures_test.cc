// What switching costs, as ratios of times measured in the same round. One round by default;
// PEERCHUNK_FAULT_ROUNDS=15 <build>/tests/faults_test --gtest_filter='Figures*' prints medians that
// mean something. Only bytes are asserted.
#include <atomic>
#include <cstdlib>
#include <map>
#include <thread>

#include "tests/faults/fault_fixture.h"
#include "tests/support/fault_proxy.h"

namespace peerchunk::test {
namespace {

class FiguresTest : public FaultsTest {
 protected:
  static int Rounds() {
    const char* const wanted = std::getenv("PEERCHUNK_FAULT_ROUNDS");
    return wanted == nullptr ? 1 : std::max(1, std::atoi(wanted));
  }
  void Note(const std::string& name, double value) { values_[name].push_back(value); }
  void TearDown() override {
    for (auto& [name, values] : values_) {
      std::sort(values.begin(), values.end());
      Report(name + "_median", values[values.size() / 2]);
      if (values.size() < 3) continue;
      Report(name + "_least", values.front());
      Report(name + "_most", values.back());
    }
  }
  static double Ms(absl::Duration time) { return absl::ToDoubleMilliseconds(time); }

  // Half from the peer, half from the base, and the whole with the peer killed half way.
  void KilledHalfWay(const std::string& name, uint64_t bytes_per_second) {
    for (int round = 0; round < Rounds(); ++round) {
      watchdog_.Kick();
      const auto source = StartSource();
      std::unique_ptr<FaultProxy> proxy;
      std::string address = source->address();
      FaultReader::Options options = ReaderOptions(PatientBudgets());
      if (bytes_per_second > 0) {
        proxy = std::make_unique<FaultProxy>(
            address, FaultProxy::Options{.bytes_per_second = bytes_per_second});
        address = proxy->address();
        options.base_bytes_per_second = bytes_per_second;
      }
      const uint64_t half = FileSize() / 2;
      const ReadOutcome from_peer = FaultReader(Build(), {address}, options).Read({}, {}, 0, half);
      const ReadOutcome from_base = FaultReader(Build(), {}, options).Read({}, {}, half);
      ASSERT_TRUE(from_peer.identical && from_base.identical);
      ASSERT_EQ(from_peer.bytes.peer, half);

      const FaultReader reader(Build(), {address}, options);
      bool killed = false;
      const ReadOutcome both = reader.Read([&](uint64_t reached) {
        if (killed || reached < half) return;
        killed = true;
        source->process().Signal(SIGKILL);
      });
      ASSERT_TRUE(both.identical) << both.status;
      Note(name + "_half_from_peer_ms", Ms(from_peer.took));
      Note(name + "_half_from_base_ms", Ms(from_base.took));
      Note(name + "_ms", Ms(both.took));
      Note(name + "_ratio", absl::FDivDuration(both.took, from_peer.took + from_base.took));
    }
  }

  std::map<std::string, std::vector<double>> values_;
};

TEST_F(FiguresTest, PeerKilledHalfWayAgainstHalfAndHalf) { KilledHalfWay("killed_at_50", 0); }

TEST_F(FiguresTest, PeerKilledHalfWayAgainstHalfAndHalfAtTheSpeedOfANetwork) {
  KilledHalfWay("killed_at_50_at_128_mib_per_s", 128 * kMiB);
}

// Bytes that reached the reader's host and were for nothing, since another source gave them again.
TEST_F(FiguresTest, BytesThatCameTwice) {
  for (int round = 0; round < Rounds(); ++round) {
    for (const bool stop : {false, true}) {
      watchdog_.Kick();
      const auto source = StartSource();
      FaultProxy proxy(source->address());
      const FaultReader reader(Build(), {proxy.address()},
                               ReaderOptions(stop ? ShortBudgets() : PatientBudgets()));
      proxy.HoldAfter(FileSize() / 2);
      std::thread fate([&] {
        proxy.AwaitHeld();
        source->process().Signal(stop ? SIGSTOP : SIGKILL);
        if (!stop) source->process().Wait();
        proxy.Release();
      });
      const ReadOutcome outcome = reader.Read();
      fate.join();
      ASSERT_TRUE(outcome.identical) << outcome.status;
      // A few bytes in a thousand are framing.
      const uint64_t twice = proxy.bytes_forwarded() - outcome.bytes.peer;
      Note(stop ? "twice_stopped_kib" : "twice_killed_kib", static_cast<double>(twice) / 1024);
      EXPECT_LT(twice, 4 * kMiB);
    }
  }
}

TEST_F(FiguresTest, StoppedSourceAgainstTheStallBudgetAndARoundTrip) {
  for (int round = 0; round < Rounds(); ++round) {
    watchdog_.Kick();
    const auto source = StartSource();
    const PeerBudgets budgets = Rounds() == 1 ? ShortBudgets() : PeerBudgets();
    const FaultReader reader(Build(), {source->address()}, ReaderOptions(budgets));
    reader.Greet();
    std::string page(4096, 'x');
    const auto object = reader.Open();
    ASSERT_OK(object->ReadAt(0, absl::MakeSpan(page), {.deadline = FaultReader::Deadline()}));
    const absl::Time asked = Clock::Real().Now();
    ASSERT_OK(object->ReadAt(0, absl::MakeSpan(page), {.deadline = FaultReader::Deadline()}));
    const absl::Duration round_trip = Clock::Real().Now() - asked;
    bool stopped = false;
    const ReadOutcome outcome = reader.Read([&](uint64_t reached) {
      if (stopped || reached < FileSize() / 2) return;
      stopped = true;
      source->process().Signal(SIGSTOP);
    });
    ASSERT_TRUE(outcome.identical) << outcome.status;
    Note("switch_ms", Ms(outcome.longest_pause));
    Note("switch_round_trip_ms", Ms(round_trip));
    Note("switch_against_budget_ratio",
         absl::FDivDuration(outcome.longest_pause, budgets.stall + round_trip));
  }
}

TEST_F(FiguresTest, HealthyPeerIsHardlyHedged) {
  constexpr uint64_t kChunk = 256 * 1024;
  // A machine that stands still for a moment makes any peer a slow one: once of three will do.
  double share = 1;
  for (int attempt = 0; attempt < 3 && share >= 0.02; ++attempt) {
    watchdog_.Kick();
    const auto source = StartSource();
    const FaultReader reader(Build(), {source->address()}, ReaderOptions(PeerBudgets()));
    std::atomic<uint64_t> next = 0;
    std::atomic<bool> right = true;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        const auto object = reader.Open();
        std::string chunk(kChunk, 'x');
        for (uint64_t offset; (offset = next++ * kChunk) < FileSize();) {
          const auto got =
              object->ReadAt(offset, absl::MakeSpan(chunk), {.deadline = FaultReader::Deadline()});
          const std::string_view expected =
              std::string_view(Build().files.at(FileKind::kMemfile)).substr(offset, kChunk);
          right = right && got.ok() && std::string_view(chunk).substr(0, *got) == expected;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(right);
    const SourceBytes bytes = reader.Bytes();
    share = static_cast<double>(bytes.base + bytes.wasted) / static_cast<double>(FileSize());
    Note("healthy_hedged_percent", 100 * share);
  }
  EXPECT_LT(share, 0.02);
}

}  // namespace
}  // namespace peerchunk::test
