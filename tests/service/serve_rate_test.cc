// What is sent to peers stays within a rate, in the time of a clock that moves when told.
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "service/send_pacer.h"
#include "tests/service/answers.h"
#include "tests/service/served_builds.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using test::Answer;
using test::MakeTestBuild;
using test::Read;
using test::ServedBuilds;
using test::TestBuild;

constexpr uint64_t kRate = 4 * kMiB;
// Heads, framing and the messages that only end something.
constexpr uint64_t kFraming = 64 * kKiB;

class ServeRateTest : public testing::Test {
 protected:
  ServeRateTest() : build_(MakeTestBuild({.memfile_bytes = 12 * kMiB})) {}

  ChunkService::Options Options() {
    return {.longest_demand_wait = absl::Hours(10),
            .longest_prefetch_wait = absl::Hours(10),
            .stall_timeout = absl::Hours(10),
            .max_bytes_per_second = kRate,
            .clock = &clock_};
  }
  void Serve(const ChunkService::Options& options) {
    served_ = std::make_unique<ServedBuilds>(options);
    served_->Add(build_);
  }
  const std::string& memfile() const { return build_.files.at(FileKind::kMemfile); }
  Answer ReadAll(PeerLane lane, bool prefetch) {
    return Read(*served_->Client(lane),
                {.file = {build_.id, FileKind::kMemfile}, .prefetch = prefetch});
  }
  Answer ReadPage(uint64_t offset, uint64_t length = kPageBytes) {
    return Read(*served_->Client(PeerLane::kDemand),
                {.file = {build_.id, FileKind::kMemfile}, .offset = offset, .length = length});
  }
  uint64_t Sent() { return served_->metrics.CounterValue("peerchunk_served_bytes_total"); }
  // `unpaid`: what may be sent before it is paid for. The time goes no further ahead of what is
  // sent than a turn, so that it shows whether the rate is kept to.
  void RunWithinTheRate(uint64_t unpaid, const std::vector<std::function<void()>>& readers) {
    std::atomic<size_t> running{readers.size()};
    std::vector<std::thread> threads;
    for (const auto& reader : readers) {
      threads.emplace_back([&reader, &running] {
        reader();
        --running;
      });
    }
    const absl::Time start = clock_.Now();
    while (running > 0) {
      const uint64_t sent = Sent();
      const auto paid = static_cast<uint64_t>(absl::ToDoubleSeconds(clock_.Now() - start) * kRate);
      EXPECT_LE(sent, paid + unpaid + kMiB + kFraming);
      if (sent + kMiB > paid + unpaid) clock_.Advance(absl::Milliseconds(1));
      std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
    const auto paid = static_cast<uint64_t>(absl::ToDoubleSeconds(clock_.Now() - start) * kRate);
    EXPECT_GE(paid + unpaid + kMiB + kFraming, readers.size() * memfile().size());
  }

  test::SimulatedClock clock_;
  const TestBuild build_;
  std::unique_ptr<ServedBuilds> served_;
};

TEST_F(ServeRateTest, OneStreamStaysWithinTheRate) {
  Serve(Options());
  RunWithinTheRate(0, {[this] {
                     const Answer whole = ReadAll(PeerLane::kBulk, true);
                     EXPECT_TRUE(whole.status.ok()) << whole.status;
                     EXPECT_TRUE(whole.bytes == memfile());
                   }});
  EXPECT_GT(served_->metrics.CounterValue("peerchunk_served_throttled_microseconds_total"), 0u);
}

TEST_F(ServeRateTest, SeveralStreamsStayWithinItTogether) {
  Serve(Options());
  const auto reader = [this] {
    const Answer whole = ReadAll(PeerLane::kBulk, true);
    EXPECT_TRUE(whole.bytes == memfile()) << whole.status;
  };
  RunWithinTheRate(0, {reader, reader, reader});
}

TEST_F(ServeRateTest, StreamsThatSomebodyWaitsForStayWithinItToo) {
  Serve(Options());
  const auto reader = [this] {
    const Answer whole = ReadAll(PeerLane::kBulk, false);
    EXPECT_TRUE(whole.bytes == memfile()) << whole.status;
  };
  RunWithinTheRate(SendPacer::kDemandBurstBytes, {reader, reader});
}

TEST_F(ServeRateTest, PageReadsStayWithinItAsWell) {
  Serve(Options());
  RunWithinTheRate(SendPacer::kDemandBurstBytes, {[this] {
                     for (uint64_t at = 0; at < memfile().size(); at += 16 * kPageBytes) {
                       const Answer pages = ReadPage(at, 16 * kPageBytes);
                       ASSERT_TRUE(pages.bytes == memfile().substr(at, 16 * kPageBytes))
                           << pages.status;
                     }
                   }});
}

// The time does not move: what the bulk reader waits for never comes.
TEST_F(ServeRateTest, PageReadsNeverWaitForABulkReader) {
  Serve(Options());
  std::thread bulk([this] { ReadAll(PeerLane::kBulk, true); });
  while (Sent() < kMiB) std::this_thread::yield();
  for (uint64_t at = 0; at < 64 * kPageBytes; at += kPageBytes) {
    const Answer page = ReadPage(at);
    ASSERT_TRUE(page.bytes == memfile().substr(at, kPageBytes)) << page.status;
  }
  EXPECT_LE(Sent(), kMiB + 64 * kPageBytes + kFraming);
  served_->Stop();
  bulk.join();
}

TEST_F(ServeRateTest, AReaderThatLeavesEndsItsWait) {
  ChunkService::Options options = Options();
  options.max_streams = 2;
  Serve(options);
  const auto client = served_->Client(PeerLane::kBulk);
  const PeerRequest whole{.file = {build_.id, FileKind::kMemfile}, .prefetch = true};
  auto first = client->GetBuildFile(whole, {});
  auto second = client->GetBuildFile(whole, {});
  while (Sent() < kMiB) std::this_thread::yield();
  // A third one is refused until the wait of one of them ends.
  const PeerRequest page{.file = {build_.id, FileKind::kMemfile}, .length = kPageBytes};
  const auto refused = [&] { return absl::IsResourceExhausted(Read(*client, page).status); };
  while (!refused()) std::this_thread::yield();
  first.reset();
  while (refused()) std::this_thread::yield();
}

TEST_F(ServeRateTest, TheEndOfTheServiceEndsEveryWait) {
  Serve(Options());
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([this] { EXPECT_FALSE(ReadAll(PeerLane::kBulk, true).status.ok()); });
  }
  while (Sent() < kMiB) std::this_thread::yield();
  served_->Stop();
  for (std::thread& reader : readers) reader.join();
}

// A reader is told to go elsewhere before it would take this node for stalled.
TEST_F(ServeRateTest, WhoseTurnDoesNotComeInTimeIsRefused) {
  ChunkService::Options options = Options();
  options.longest_prefetch_wait = absl::Seconds(1);
  Serve(options);
  std::atomic<int> running{16};
  std::atomic<int> refused{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 16; ++i) {
    readers.emplace_back([&, this] {
      const Answer whole = ReadAll(PeerLane::kBulk, true);
      if (absl::IsResourceExhausted(whole.status)) ++refused;
      --running;
    });
  }
  while (running > 0) {
    clock_.Advance(absl::Milliseconds(10));
    std::this_thread::yield();
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(refused, 0);
  EXPECT_GT(served_->metrics.CounterValue("peerchunk_served_failures_total",
                                          {{"reason", "RESOURCE_EXHAUSTED"}}),
            0u);
}

TEST_F(ServeRateTest, ZerosCostNothing) {
  Serve(Options());
  TestBuild zeros = MakeTestBuild({.memfile_bytes = 12 * kMiB, .seed = 2});
  std::string& bytes = zeros.files.at(FileKind::kMemfile);
  bytes.assign(bytes.size(), '\0');
  served_->Add(zeros);
  // The time does not move.
  const Answer whole = Read(*served_->Client(PeerLane::kBulk),
                            {.file = {zeros.id, FileKind::kMemfile}, .prefetch = true});
  EXPECT_TRUE(whole.status.ok()) << whole.status;
  EXPECT_TRUE(whole.bytes == bytes);
}

TEST_F(ServeRateTest, ARateThatReadersWouldTakeForAStallIsRefused) {
  ServedBuilds served;
  Metrics metrics;
  const auto slow = ChunkService::Create(
      served.templates.get(),
      {.max_bytes_per_second = ChunkService::kLeastBytesPerSecond - 1, .metrics = &metrics});
  EXPECT_EQ(slow.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace peerchunk
