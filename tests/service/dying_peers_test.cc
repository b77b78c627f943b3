// 64 readers of one build over real gRPC and one pool of connections, while their peers die, hang
// and come back: for AddressSanitizer. (tests/peer/threads_test.cc has the same for
// ThreadSanitizer, without gRPC.)
#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/logging.h"
#include "peerchunk/base/range.h"
#include "peerchunk/peer/peer_directory.h"
#include "tests/service/served_builds.h"
#include "tests/support/fault_proxy.h"
#include "tests/support/memory_storage.h"
#include "tests/support/status_asserts.h"
#include "tests/support/transport.h"

namespace peerchunk::test {
namespace {

constexpr int kReaders = 64;
constexpr int kReadsEach = 24;

class DyingPeersTest : public testing::TestWithParam<Transport> {
 protected:
  DyingPeersTest() {
    Logger("peer").set_level(spdlog::level::off);
    for (const auto& [kind, bytes] : build_.files) {
      base_->Seed(BuildFileId{build_.id, kind}.ObjectPath(), bytes);
    }
    std::vector<std::string> addresses;
    for (int i = 0; i < 3; ++i) {
      peers_.push_back(std::make_unique<ServedBuilds>());
      peers_.back()->Add(build_);
      ways_.push_back(std::make_unique<FaultProxy>(peers_.back()->address()));
      addresses.push_back(ways_.back()->address());
    }
    PeerBudgets budgets;
    budgets.dial = budgets.first_byte = budgets.stall = absl::Milliseconds(500);
    budgets.hedge_ceiling = absl::Milliseconds(20);
    budgets.hedge_share = 0.5;
    budgets.breaker_open = absl::Milliseconds(20);
    directory_ = *PeerDirectory::Create(
        {.policy = *AddressPolicy::Create(
             {.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}}),
         .connector = connector_,
         .budgets = budgets,
         .executor = &pool_,
         .metrics = &metrics_});
    provider_ = *directory_->OpenBuild(build_.id, addresses, base_);
  }
  ~DyingPeersTest() override { Logger("peer").set_level(spdlog::level::info); }

  // What happens to a peer at a reader's turn.
  void Trouble(int turn, std::mt19937_64& random) {
    if (turn < 2 * kReaders) return;  // They are there at first.
    FaultProxy& way = *ways_[random() % ways_.size()];
    switch (turn % 24) {
      case 1:
      case 13:
        way.Cut();
        break;
      case 5:
        way.HoldAfter(random() % (512 * kKiB));
        break;
      case 9:
      case 17:
        for (const auto& each : ways_) each->Release();
        break;
      default:
        break;
    }
    if (turn == kReaders * kReadsEach / 2) peers_[0]->Stop();  // For good.
  }

  void ReadOnce(std::mt19937_64& random) {
    const FileKind kind = random() % 4 == 0 ? FileKind::kRootfs : FileKind::kMemfile;
    const std::string& bytes = build_.files.at(kind);
    const std::string path = BuildFileId{build_.id, kind}.ObjectPath();
    ReadOptions options{.deadline = Clock::Real().Now() + absl::Seconds(60)};
    std::stop_source stop;
    options.cancellation = stop.get_token();
    const uint64_t offset = random() % bytes.size();
    const uint64_t length = random() % 3 == 0 ? random() % kMiB : random() % 8192;
    const std::string_view expected = std::string_view(bytes).substr(offset, length);
    const auto object = *provider_->OpenSeekable(path);
    if (random() % 2 == 0) {
      std::string got(length, 'x');
      const auto read = object->ReadAt(offset, absl::MakeSpan(got), options);
      ASSERT_OK(read);
      ASSERT_TRUE(std::string_view(got).substr(0, *read) == expected);
      return;
    }
    const auto reader = object->OpenRangeReader(offset, length, options);
    ASSERT_OK(reader);
    std::string got;
    const bool leaves = random() % 8 == 0;
    while (true) {
      const auto extent = (*reader)->Next();
      ASSERT_OK(extent);
      if (!*extent) break;
      got.resize(got.size() + (*extent)->length);
      (*extent)->CopyTo(got.data() + got.size() - (*extent)->length);
      if (leaves) return;  // Half-read; the destructor ends the stream.
    }
    ASSERT_TRUE(got == expected);
  }

  size_t Connections() const {
    if (const auto* const grpc = dynamic_cast<const GrpcConnector*>(connector_.get())) {
      return grpc->channels();
    }
    return dynamic_cast<const Http2Connector&>(*connector_).connections();
  }

  const TestBuild build_ = MakeTestBuild({.memfile_bytes = 6 * kMiB, .rootfs_bytes = kMiB});
  std::shared_ptr<MemoryStorageProvider> base_ = std::make_shared<MemoryStorageProvider>();
  std::vector<std::unique_ptr<ServedBuilds>> peers_;
  std::vector<std::unique_ptr<FaultProxy>> ways_;
  std::shared_ptr<ChunkServiceConnector> connector_ = ConnectorOver(GetParam());
  Metrics metrics_;
  ThreadPool pool_{"hedge", 4};
  std::unique_ptr<PeerDirectory> directory_;
  std::shared_ptr<StorageProvider> provider_;
};

INSTANTIATE_TEST_SUITE_P(Transports, DyingPeersTest,
                         testing::Values(Transport::kHttp2, Transport::kGrpc),
                         [](const auto& info) { return NameOf(info.param); });

TEST_P(DyingPeersTest, ManyReadersOfOneBuildGetEveryByteRight) {
  // From a peer, however busy the machine: it may be that all of the reads below are hedged.
  std::string page(4096, 'x');
  ASSERT_OK((*provider_->OpenSeekable(BuildFileId{build_.id, FileKind::kMemfile}.ObjectPath()))
                ->ReadAt(0, absl::MakeSpan(page), {.sources = SourcePolicy::kPeerOnly}));
  std::atomic<int> turns = 0;
  std::vector<std::thread> threads;
  for (int reader = 0; reader < kReaders; ++reader) {
    threads.emplace_back([&, reader] {
      std::mt19937_64 random(static_cast<uint64_t>(reader));
      for (int i = 0; i < kReadsEach; ++i) {
        Trouble(turns++, random);
        ReadOnce(random);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  SourceBytes bytes;
  for (const FileKind kind : {FileKind::kMemfile, FileKind::kRootfs}) {
    bytes.peer += directory_->BytesOf({build_.id, kind}).peer;
    bytes.base += directory_->BytesOf({build_.id, kind}).base;
  }
  EXPECT_GT(bytes.peer, 0u);
  EXPECT_GT(bytes.base, 0u);
  EXPECT_LE(Connections(), 2 * peers_.size());  // One for each peer and lane.
}

// Readers are cancelled and go, the directory and the pool go, while peers are silent.
TEST_P(DyingPeersTest, ReadersThatAreCancelledLeaveNothingBehind) {
  for (const auto& way : ways_) way->HoldAfter(64 * kKiB);
  for (const auto& [kind, bytes] : build_.files) {
    base_->Remove(BuildFileId{build_.id, kind}.ObjectPath());
  }
  std::stop_source stop;
  std::atomic<int> waiting = 0;
  std::vector<std::thread> threads;
  for (int reader = 0; reader < kReaders; ++reader) {
    threads.emplace_back([&, reader] {
      ReadOptions options{.deadline = Clock::Real().Now() + absl::Seconds(60)};
      options.cancellation = stop.get_token();
      const auto object =
          *provider_->OpenSeekable(BuildFileId{build_.id, FileKind::kMemfile}.ObjectPath());
      std::string got(reader % 2 == 0 ? 4096 : 2 * kMiB, 'x');
      ++waiting;
      while (true) {
        const auto read = object->ReadAt(0, absl::MakeSpan(got), options);
        if (read.ok()) continue;  // A small one may have come through.
        EXPECT_TRUE(absl::IsCancelled(read.status())) << read.status();
        return;
      }
    });
  }
  while (waiting < kReaders) std::this_thread::yield();
  stop.request_stop();
  for (std::thread& thread : threads) thread.join();
  provider_.reset();
  directory_.reset();
  connector_.reset();
  // The services end too, or their destructors would hang.
}

}  // namespace
}  // namespace peerchunk::test
