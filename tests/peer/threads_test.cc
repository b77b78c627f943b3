// Many readers of one build on real threads, with peers that die and come back under them: for
// ThreadSanitizer, which has no gRPC in the way here.
#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/logging.h"
#include "peerchunk/base/range.h"
#include "tests/peer/peer_fixture.h"

namespace peerchunk::test {
namespace {

constexpr int kReaders = 64;

PeerBudgets Quick() {
  PeerBudgets budgets;
  budgets.dial = budgets.first_byte = budgets.stall = absl::Milliseconds(20);
  budgets.hedge_floor = absl::Milliseconds(1);
  budgets.hedge_ceiling = absl::Milliseconds(5);
  budgets.hedge_share = 0.5;
  budgets.breaker_open = absl::Milliseconds(2);
  budgets.quarantine = absl::Milliseconds(5);
  budgets.not_available_pause = absl::Milliseconds(1);
  budgets.retry_backoff = absl::Milliseconds(1);
  return budgets;
}

TEST(ThreadsTest, ManyReadersOfOneBuildWhilePeersDie) {
  Logger("peer").set_level(spdlog::level::off);
  ThreadPool pool("hedge", 4);
  PeerWorld world(Clock::Real(), &pool, Quick());
  const std::string bytes = SampleBytes(512 * kKiB, 1);
  for (const char* address : {kPeerA, kPeerB}) {
    SimulatedNode& node = world.Node(address);
    node.PutFile(FileOf(FileKind::kMemfile), bytes);
    node.PutFile(FileOf(FileKind::kMemfileHeader), bytes.substr(0, 10'000));
    node.SetState(kBuild, BuildState::kUploading);
    node.SetExtentBytes(16 * kKiB);
    node.AddFault({.skip = 20, .times = 20, .after_bytes = 40'000, .stall = true});
    node.AddFault({.skip = 30, .times = 20, .after_bytes = 20'000, .corrupt = true});
    node.AddFault({.skip = 40, .times = 20, .cut = true});
    node.AddFault(
        {.skip = 50,
         .times = 20,
         .error = WithRetryAfter(absl::ResourceExhaustedError("busy"), absl::Milliseconds(1))});
  }
  world.Seed(FileKind::kMemfile, bytes);
  world.Seed(FileKind::kMemfileHeader, bytes.substr(0, 10'000));
  world.Seed(FileKind::kMetadata, "{}");
  const auto provider = world.Open({kPeerA, kPeerB});

  // From a peer, however busy the machine: it may be that none of the reads below keeps to the
  // budgets.
  ReadOptions peers_only;
  peers_only.sources = SourcePolicy::kPeerOnly;
  ASSERT_OK(ReadAt(*provider, 0, 1000, peers_only));

  std::atomic<int> reads = 0;
  std::vector<std::thread> threads;
  for (int reader = 0; reader < kReaders; ++reader) {
    threads.emplace_back([&, reader] {
      std::mt19937_64 random(static_cast<uint64_t>(reader));
      for (int i = 0; i < 12; ++i) {
        // Every so many reads something happens to a node, whoever reads at the time.
        SimulatedNode& node = world.Node(random() % 2 == 0 ? kPeerA : kPeerB);
        const int turn = reads.fetch_add(1);
        if (turn % 7 == 0) node.Kill();
        if (turn % 7 == 3) node.Revive();
        if (turn % 31 == 5) node.Freeze(true);
        if (turn % 31 == 9) node.Freeze(false);
        if (turn == kReaders * 11) world.Node(kPeerA).SetState(kBuild, BuildState::kDurable);

        const uint64_t offset = random() % bytes.size();
        const uint64_t length = random() % 100'000;
        absl::StatusOr<std::string> read;
        std::string expected = bytes.substr(offset, length);
        if (i % 4 == 0) {
          read = ReadBlob(*provider, FileKind::kMemfileHeader);
          expected = bytes.substr(0, 10'000);
        } else if (i % 4 == 1) {
          read = ReadRange(*provider, offset, length);
        } else {
          read = ReadAt(*provider, offset, length);
        }
        ASSERT_OK(read);
        ASSERT_TRUE(*read == expected);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(world.Node(kPeerA).open_streams() + world.Node(kPeerB).open_streams(), 0u);
  const SourceBytes counted = world.Bytes(FileKind::kMemfile);
  EXPECT_GT(counted.peer, 0u);
  EXPECT_GT(counted.base, 0u);
  Logger("peer").set_level(spdlog::level::info);
}

}  // namespace
}  // namespace peerchunk::test
