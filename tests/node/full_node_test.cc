// A node whose disk budget is used up by what may not be evicted.
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/node/running_node.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/resident_memory.h"

namespace peerchunk {
namespace {

using test::ExpectSame;
using test::MakeTestBuild;
using test::RunningNode;
using test::TempDir;
using test::TestBuild;
using testing::HasSubstr;

// Two nodes over a base that takes no uploads until told otherwise.
class FullNodeTest : public testing::Test {
 protected:
  static constexpr uint64_t kCapacity = 2 * kMiB;

  FullNodeTest() {
    base_->AddFault({.call = test::StorageCall::kWrite, .stall = true});
    NodeOptions small;
    small.cache_capacity_bytes = kCapacity;
    small.chunk_bytes = 64 * kKiB;
    roomy_ = std::make_unique<RunningNode>(dir_.PathOf("roomy"), base_);
    small_ = std::make_unique<RunningNode>(dir_.PathOf("small"), base_, std::move(small));
  }
  ~FullNodeTest() override {
    small_->Stop();
    roomy_->Stop();
  }

  absl::Status Pause(RunningNode& on, const TestBuild& build) {
    return on.node->Pause(build.id, build.WriteTo(dir_, build.id.ToString())).status();
  }
  // Its files by whole pages, and its record and checksums.
  static uint64_t OnDisk(const TestBuild& build) {
    uint64_t bytes = 2 * kPageBytes;
    for (const auto& [kind, file] : build.files) bytes += RoundUp(file.size(), kPageBytes);
    return bytes;
  }
  static void AwaitDurable(RunningNode& on, const TestBuild& build) {
    while (true) {
      const auto info = on.node->GetBuild(build.id);
      if (!info.ok() || info->state == BuildState::kDurable) return;
      std::this_thread::yield();
    }
  }
  static void ExpectNoRoom(const absl::Status& status, const TestBuild& build) {
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    const std::string message(status.message());
    for (const std::string& part :
         {build.id.ToString(), std::to_string(kCapacity), std::string("not durable yet"),
          std::string("wait for uploads"), std::string("--cache-capacity")}) {
      EXPECT_THAT(message, HasSubstr(part));
    }
  }

  TempDir dir_;
  test::MemoryStorageProvider memory_;
  std::shared_ptr<test::FaultStorageProvider> base_ =
      std::make_shared<test::FaultStorageProvider>(memory_);
  std::unique_ptr<RunningNode> roomy_;
  std::unique_ptr<RunningNode> small_;
};

TEST_F(FullNodeTest, NewWorkIsRefusedWithWhyAndWhatRunsGoesOn) {
  const TestBuild running = MakeTestBuild({.seed = 1});
  const TestBuild other = MakeTestBuild({.seed = 2});
  const TestBuild mine = MakeTestBuild({.seed = 3});
  const TestBuild more = MakeTestBuild({.seed = 4});
  EXPECT_TRUE(Pause(*roomy_, running).ok());
  EXPECT_TRUE(Pause(*roomy_, other).ok());
  const auto guest =
      small_->node->GetTemplate(running.id, {.default_addresses = {roomy_->address}});
  ASSERT_TRUE(guest.ok()) << guest.status();
  EXPECT_TRUE(Pause(*small_, mine).ok());
  ASSERT_TRUE(small_->node->templates().BuildStore().Full());

  ExpectNoRoom(Pause(*small_, more), more);
  ExpectNoRoom(
      small_->node->GetTemplate(other.id, {.default_addresses = {roomy_->address}}).status(),
      other);
  ExpectNoRoom(small_->node->OpenBuild(other.id, {roomy_->address}).status(), other);
  // The guest's reads are passed through; what is here is there to be read.
  ExpectSame(**guest, running);
  EXPECT_TRUE(small_->node->GetTemplate(running.id, {}).ok());
  const auto own = small_->node->GetTemplate(mine.id, {});
  ASSERT_TRUE(own.ok()) << own.status();
  ExpectSame(**own, mine);

  base_->ClearFaults();
  small_->Settle();  // Drains: another node would take the next pause.
  EXPECT_EQ(small_->node->GetBuild(mine.id)->state, BuildState::kDurable);
}

TEST_F(FullNodeTest, WhenUploadsHaveEndedThereIsRoomAgain) {
  const TestBuild mine = MakeTestBuild({.seed = 3});
  const TestBuild more = MakeTestBuild({.seed = 4});
  EXPECT_TRUE(Pause(*small_, mine).ok());
  ExpectNoRoom(Pause(*small_, more), more);
  base_->ClearFaults();
  absl::Status paused = absl::ResourceExhaustedError("not tried");
  while (absl::IsResourceExhausted(paused)) {
    paused = Pause(*small_, more);
    std::this_thread::yield();
  }
  EXPECT_TRUE(paused.ok()) << paused;
  small_->Settle();
  const auto evicted = small_->node->GetTemplate(mine.id, {});  // Here still, or from the base.
  ASSERT_TRUE(evicted.ok()) << evicted.status();
  ExpectSame(**evicted, mine);
}

// Sixteen readers on a node whose builds that are not durable are more than its budget, while it
// goes on pausing what it is given and refuses what it must.
TEST_F(FullNodeTest, SixteenReadersAndPausesGoOnWithinTheBudgetAndWhatIsUnevictable) {
  std::vector<TestBuild> foreign;
  std::vector<TestBuild> mine;
  for (uint32_t i = 0; i < 3; ++i) {
    foreign.push_back(MakeTestBuild({.memfile_bytes = kMiB, .rootfs_bytes = kMiB, .seed = 10 + i}));
    EXPECT_TRUE(Pause(*roomy_, foreign.back()).ok());
  }
  std::vector<std::shared_ptr<Template>> guests;
  for (const TestBuild& build : foreign) {
    const auto guest =
        small_->node->GetTemplate(build.id, {.default_addresses = {roomy_->address}});
    ASSERT_TRUE(guest.ok()) << guest.status();
    guests.push_back(*guest);
  }
  for (uint32_t i = 0; i < 8; ++i) {
    mine.push_back(MakeTestBuild({.memfile_bytes = kMiB, .rootfs_bytes = kMiB, .seed = 20 + i}));
  }
  size_t accepted = 0;
  uint64_t only_copies = 0;
  const auto pause_or_be_refused = [&](const TestBuild& build) {
    const absl::Status paused = Pause(*small_, build);
    if (!paused.ok()) {
      ExpectNoRoom(paused, build);
      return;
    }
    ++accepted;
    only_copies += OnDisk(build);
  };
  // More than the budget before anyone reads, however the readers' chunks then take their share.
  size_t next = 0;
  while (next < mine.size() && only_copies <= kCapacity) pause_or_be_refused(mine[next++]);
  ASSERT_GT(only_copies, kCapacity);
  std::atomic<bool> stop = false;
  std::vector<std::thread> readers;
  for (uint32_t seed = 0; seed < 16; ++seed) {
    readers.emplace_back([&, seed] {
      std::mt19937 random(seed);
      while (!stop) {
        const size_t which = random() % guests.size();
        const std::string& device = foreign[which].memfile;
        const uint64_t offset = random() % device.size();
        std::string got(std::min<uint64_t>(1 + random() % 100'000, device.size() - offset), '?');
        const auto read = guests[which]->Memfile()->ReadAt(offset, absl::MakeSpan(got), {});
        EXPECT_TRUE(read.ok()) << read.status();
        EXPECT_TRUE(got == device.substr(offset, got.size()));
      }
    });
  }
  for (; next < mine.size(); ++next) pause_or_be_refused(mine[next]);
  EXPECT_LT(accepted, mine.size());
  EXPECT_LE(small_->node->templates().BuildStore().AllocatedBytes(), kCapacity + only_copies);
  stop = true;
  for (std::thread& reader : readers) reader.join();
  size_t held = 0;
  for (const TestBuild& build : mine) {
    const auto info = small_->node->GetBuild(build.id);
    if (!info.ok()) continue;
    ++held;
    const auto own = small_->node->GetTemplate(build.id, {});
    ASSERT_TRUE(own.ok()) << own.status();
    ExpectSame(**own, build);
  }
  EXPECT_EQ(held, accepted);
  base_->ClearFaults();
  small_->Settle();
}

// DURABLE builds that were read whole are pinned by their templates, which nobody uses any more.
TEST_F(FullNodeTest, WhatIsEvictableIsNoReasonToRefuseWork) {
  base_->ClearFaults();
  const TestBuild mine = MakeTestBuild({.seed = 3});
  const TestBuild more = MakeTestBuild({.seed = 4});
  EXPECT_TRUE(Pause(*small_, mine).ok());
  auto guest = small_->node->GetTemplate(mine.id, {});
  ASSERT_TRUE(guest.ok()) << guest.status();
  ExpectSame(**guest, mine);
  AwaitDurable(*small_, mine);
  ASSERT_TRUE(small_->node->templates().BuildStore().Full());
  *guest = nullptr;
  const absl::Status paused = Pause(*small_, more);
  EXPECT_TRUE(paused.ok()) << paused;
}

TEST_F(FullNodeTest, MetadataThatComesLateLeavesNoPin) {
  base_->ClearFaults();
  const TestBuild mine = MakeTestBuild({.seed = 3});
  base_->AddFault({.call = test::StorageCall::kWrite,
                   .path = BuildFileId{mine.id, FileKind::kMetadata}.ObjectPath(),
                   .times = 1,
                   .after_write = true,
                   .stall = true});
  EXPECT_TRUE(Pause(*small_, mine).ok());
  base_->AwaitStalled(1);
  EXPECT_TRUE(small_->node->ReplaceMetadata(mine.id, "{\"late\":1}").ok());
  base_->ClearFaults();
  while (small_->node->templates().BuildStore().Full()) std::this_thread::yield();
  EXPECT_EQ(memory_.Bytes(BuildFileId{mine.id, FileKind::kMetadata}.ObjectPath()), "{\"late\":1}");
}

// What does not fit the disk is passed through, and passes through memory in pieces: sixteen
// readers move a gibibyte.
TEST_F(FullNodeTest, MemoryIsBoundedHoweverMuchIsPassedThrough) {
  constexpr uint64_t kReadBytes = 256 * kKiB;
  const TestBuild large = MakeTestBuild({.memfile_bytes = 64 * kMiB, .seed = 1});
  const TestBuild mine = MakeTestBuild({.memfile_bytes = 4 * kMiB, .seed = 2});
  EXPECT_TRUE(Pause(*roomy_, large).ok());
  const auto guest = small_->node->GetTemplate(large.id, {.default_addresses = {roomy_->address}});
  ASSERT_TRUE(guest.ok()) << guest.status();
  EXPECT_TRUE(Pause(*small_, mine).ok());
  ASSERT_TRUE(small_->node->templates().BuildStore().Full());

  std::ofstream("/proc/self/clear_refs") << "5";  // The peak begins anew.
  const uint64_t idle = test::OfThisProcess("VmRSS");
  std::vector<std::thread> readers;
  for (uint64_t reader = 0; reader < 16; ++reader) {
    readers.emplace_back([&, reader] {
      std::string got(kReadBytes, '?');
      for (uint64_t done = 0; done < large.memfile.size(); done += kReadBytes) {
        const uint64_t offset = (done + reader * 4 * kMiB) % large.memfile.size();
        const auto read = (*guest)->Memfile()->ReadAt(offset, absl::MakeSpan(got), {});
        ASSERT_TRUE(read.ok()) << read.status();
        ASSERT_TRUE(got == std::string_view(large.memfile).substr(offset, kReadBytes));
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  const uint64_t peak = test::OfThisProcess("VmHWM");
  RecordProperty("peak_over_idle_kib", std::to_string((peak - idle) / kKiB));
  // Both nodes: the server's budget of bytes in flight, and 16 readers' own 256 KiB.
  if (!test::kUnderAsan) {
    EXPECT_LT(peak - idle, 128 * kMiB);
  }
  EXPECT_LE(small_->node->templates().BuildStore().AllocatedBytes(), kCapacity + OnDisk(mine));
}

}  // namespace
}  // namespace peerchunk
