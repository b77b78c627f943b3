// Nodes that hold a layer in part, and read the rest from each other.
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/node/running_node.h"

namespace peerchunk {
namespace {

using test::kPatience;
using test::kSlow;
using test::MakeTestBuild;
using test::OpenFolder;
using test::RunningNode;
using test::TempDir;
using test::TestBuild;

constexpr uint64_t kPiece = 64 * 1024;

// A source, which pauses the build and dies, and two that had resumed it.
class RelayTest : public testing::Test {
 protected:
  RelayTest()
      : build_(MakeTestBuild({.memfile_bytes = 4 * kMiB, .rootfs_bytes = 64 * 1024})),
        source_(NewNode("source", kSlow)),
        a_(NewNode("a")),
        b_(NewNode("b")) {
    const auto paused = source_->node->Pause(build_.id, build_.WriteTo(dir_, "given"));
    EXPECT_TRUE(paused.ok()) << paused.status();
  }

  std::unique_ptr<RunningNode> NewNode(const std::string& name, uint64_t upload_rate = 0) {
    NodeOptions options;
    options.chunk_bytes = kPiece;
    return std::make_unique<RunningNode>(
        dir_.PathOf(name), OpenFolder(dir_.PathOf("base"), upload_rate), std::move(options));
  }
  std::shared_ptr<Template> Resume(RunningNode& on, const std::vector<std::string>& addresses) {
    const auto resumed = on.node->GetTemplate(build_.id, {.default_addresses = addresses});
    EXPECT_TRUE(resumed.ok()) << resumed.status();
    return *resumed;
  }
  // Backwards, so that nothing is read ahead of it.
  void ReadBackwards(Template& build, uint64_t begin, uint64_t end) {
    for (uint64_t at = end; at > begin; at -= kPiece) {
      const absl::Status read = ReadAndCompare(build, at - kPiece, kPiece);
      EXPECT_TRUE(read.ok()) << read;
    }
  }
  absl::Status ReadAndCompare(Template& build, uint64_t offset, uint64_t length,
                              absl::Duration patience = kPatience,
                              const std::stop_token& cancellation = {}) {
    std::string got(length, '?');
    const auto read = build.Memfile()->ReadAt(
        offset, absl::MakeSpan(got),
        {.deadline = Clock::Real().Now() + patience, .cancellation = cancellation});
    if (!read.ok()) return read.status();
    EXPECT_TRUE(got == build_.memfile.substr(offset, length)) << "wrong bytes at " << offset;
    return absl::OkStatus();
  }
  uint64_t BytesFromPeers(RunningNode& node) {
    return node.node->BytesOf({build_.id, FileKind::kMemfile}).peer;
  }

  TempDir dir_;
  const TestBuild build_;
  const uint64_t half_ = build_.memfile.size() / 2;
  std::unique_ptr<RunningNode> source_;
  std::unique_ptr<RunningNode> a_;
  std::unique_ptr<RunningNode> b_;
};

TEST_F(RelayTest, TwoNodesWithHalfAFileEachReadEachOthersHalfAtOnce) {
  const auto at_a = Resume(*a_, {source_->address, b_->address});
  const auto at_b = Resume(*b_, {source_->address, a_->address});
  ReadBackwards(*at_a, 0, half_);
  ReadBackwards(*at_b, half_, build_.memfile.size());
  source_->Stop();
  const uint64_t had_a = BytesFromPeers(*a_);
  const uint64_t had_b = BytesFromPeers(*b_);
  std::vector<std::thread> readers;
  for (uint32_t i = 0; i < 8; ++i) {
    readers.emplace_back([&, i] {
      std::mt19937 random(i);
      Template& build = i % 2 == 0 ? *at_a : *at_b;
      for (int reads = 0; reads < 100; ++reads) {
        const uint64_t page = random() % (build_.memfile.size() / kPageBytes);
        const absl::Status read = ReadAndCompare(build, page * kPageBytes, kPageBytes);
        EXPECT_TRUE(read.ok()) << read;
      }
      const absl::Status read = ReadAndCompare(build, 0, build_.memfile.size());
      EXPECT_TRUE(read.ok()) << read;
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(BytesFromPeers(*a_), had_a);
  EXPECT_GT(BytesFromPeers(*b_), had_b);
}

// Neither has the middle, and each takes the other for a source of it. While readers on both wait
// for it, each goes on answering the other for what it has.
TEST_F(RelayTest, WhatNeitherOfTwoHasIsAnErrorAndHoldsUpNothingElse) {
  const auto at_a = Resume(*a_, {source_->address, b_->address});
  const auto at_b = Resume(*b_, {source_->address, a_->address});
  const uint64_t quarter = build_.memfile.size() / 4;
  ReadBackwards(*at_a, 0, quarter);
  ReadBackwards(*at_b, 3 * quarter, build_.memfile.size());
  source_->Stop();
  std::stop_source enough;
  std::vector<std::thread> readers;
  for (uint32_t i = 0; i < 16; ++i) {
    readers.emplace_back([&, i] {
      Template& build = i % 2 == 0 ? *at_a : *at_b;
      // A page with something in it, well inside of what neither has; zeros come from no node.
      const uint64_t offset =
          build_.memfile.find_first_not_of('\0', quarter + quarter / 2 + i * kPiece) / kPageBytes *
          kPageBytes;
      const absl::Status read =
          ReadAndCompare(build, offset, kPageBytes, absl::Minutes(10), enough.get_token());
      EXPECT_TRUE(absl::IsUnavailable(read) || absl::IsCancelled(read)) << read;
    });
  }
  // Less than a relay may take.
  constexpr absl::Duration kLessThanARelay = absl::Seconds(20);
  for (uint64_t at = 0; at < quarter; at += kPiece) {
    const absl::Status read = ReadAndCompare(*at_b, at, kPiece, kLessThanARelay);
    EXPECT_TRUE(read.ok()) << read;
  }
  const absl::Status read = ReadAndCompare(*at_a, 3 * quarter, quarter, kLessThanARelay);
  EXPECT_TRUE(read.ok()) << read;
  enough.request_stop();
  for (std::thread& reader : readers) reader.join();
}

TEST_F(RelayTest, ANodeThatHoldsALayerInPartFetchesTheRestForAnother) {
  const auto at_a = Resume(*a_, {source_->address});
  ReadBackwards(*at_a, 0, half_);
  const uint64_t had = BytesFromPeers(*a_);
  const auto at_b = Resume(*b_, {a_->address});  // Knows nothing of the source.
  const absl::Status read = ReadAndCompare(*at_b, 0, build_.memfile.size());
  EXPECT_TRUE(read.ok()) << read;
  EXPECT_GT(BytesFromPeers(*a_), had);
  EXPECT_GT(BytesFromPeers(*b_), 0u);
}

// The rule against cycles ends a chain after one relay: longer ones name their sources.
TEST_F(RelayTest, ARelayIsNotRelayed) {
  const auto at_a = Resume(*a_, {source_->address});
  const auto at_b = Resume(*b_, {a_->address});
  const auto c = NewNode("c");
  const auto at_c = Resume(*c, {b_->address});
  ReadBackwards(*at_a, 0, half_);
  absl::Status read = ReadAndCompare(*at_c, 0, half_);  // c <- b <- a, which has it.
  EXPECT_TRUE(read.ok()) << read;
  const uint64_t had = BytesFromPeers(*a_);
  const uint64_t end = build_.memfile.size();
  read = ReadAndCompare(*at_c, end - kPiece, kPiece, absl::Milliseconds(1500));
  EXPECT_TRUE(absl::IsUnavailable(read) || absl::IsDeadlineExceeded(read)) << read;
  EXPECT_EQ(BytesFromPeers(*a_), had) << "a second relay";
  const auto named = Resume(*b_, {a_->address, source_->address});
  read = ReadAndCompare(*named, end - kPiece, kPiece);  // b's own read may be relayed by a.
  EXPECT_TRUE(read.ok()) << read;
  read = ReadAndCompare(*at_c, end - kPiece, kPiece);
  EXPECT_TRUE(read.ok()) << read;
}

}  // namespace
}  // namespace peerchunk
