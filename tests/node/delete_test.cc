// What "rm" takes away, what it refuses, and who learns of it.
#include <stop_token>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/node/running_node.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"

namespace peerchunk::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class DeleteTest : public testing::Test {
 protected:
  ~DeleteTest() override {
    b_.Stop();
    a_.Stop();
  }
  void Pause(RunningNode& on, const TestBuild& build) {
    const auto paused = on.node->Pause(build.id, build.WriteTo(dir_, build.id.ToString()));
    ASSERT_TRUE(paused.ok()) << paused.status();
  }
  void Resume(RunningNode& on, const TestBuild& build, const RunningNode& from) {
    const auto resumed = on.node->GetTemplate(build.id, {.default_addresses = {from.address}});
    ASSERT_TRUE(resumed.ok()) << resumed.status();
  }
  static BuildState StateOf(RunningNode& on, const TestBuild& build) {
    const auto info = on.node->GetBuild(build.id);
    return info.ok() ? info->state : BuildState::kUnknown;
  }
  static void Await(RunningNode& on, const TestBuild& build, BuildState state) {
    while (StateOf(on, build) != state) std::this_thread::yield();
  }
  static void ExpectRefused(const absl::StatusOr<uint64_t>& deleted, const std::string& why) {
    EXPECT_TRUE(absl::IsFailedPrecondition(deleted.status())) << deleted.status();
    EXPECT_THAT(std::string(deleted.status().message()), HasSubstr(why));
  }
  void StallWrites() { base_->AddFault({.call = StorageCall::kWrite, .stall = true}); }

  TempDir dir_;
  MemoryStorageProvider memory_;
  std::shared_ptr<FaultStorageProvider> base_ = std::make_shared<FaultStorageProvider>(memory_);
  RunningNode a_{dir_.PathOf("a"), base_};
  RunningNode b_{dir_.PathOf("b"), base_};
};

TEST_F(DeleteTest, ARefusalNamesTheBuildsThatWouldBeLostToo) {
  StallWrites();
  const TestBuild parent = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &parent});
  Pause(a_, parent);
  Pause(a_, child);
  ExpectRefused(a_.node->Delete(parent.id, {}),
                "these builds could not be read: " + child.id.ToString());
}

TEST_F(DeleteTest, ChildrenOfADiscardedBuildAreFailedHereAndOnOtherNodes) {
  StallWrites();
  const TestBuild parent = MakeTestBuild({.seed = 1});
  const TestBuild here = MakeTestBuild({.seed = 2, .parent = &parent});
  const TestBuild there = MakeTestBuild({.seed = 3, .parent = &parent});
  Pause(a_, parent);
  Pause(a_, here);
  Resume(b_, parent, a_);
  Pause(b_, there);
  ASSERT_TRUE(a_.node->Delete(parent.id, {.discard_only_copy = true}).ok());
  base_->ClearFaults();
  Await(a_, here, BuildState::kFailed);
  EXPECT_THAT(a_.node->GetBuild(here.id)->reason, HasSubstr(parent.id.ToString() + " is lost"));
  Await(b_, there, BuildState::kFailed);
  EXPECT_THAT(b_.node->GetBuild(there.id)->reason, HasSubstr(a_.address + " discarded"));
  // To whoever asks for it, it is not there: no reader waits for it.
  RunningNode c(dir_.PathOf("c"), base_);
  const auto resumed = c.node->GetTemplate(parent.id, {.default_addresses = {a_.address}});
  EXPECT_TRUE(absl::IsNotFound(resumed.status())) << resumed.status();
}

TEST_F(DeleteTest, NewerMetadataIsNotDeletedUnlessSaidSo) {
  const TestBuild build = MakeTestBuild({});
  Pause(a_, build);
  Await(a_, build, BuildState::kDurable);
  StallWrites();
  ASSERT_TRUE(a_.node->ReplaceMetadata(build.id, "{\"v\":2}").ok());
  ExpectRefused(a_.node->Delete(build.id, {}), "its newest metadata is on this node only");
  EXPECT_THAT(a_.node->Drain(absl::InfinitePast()), SizeIs(1));
  base_->ClearFaults();
  a_.Settle();
  EXPECT_TRUE(a_.node->Delete(build.id, {}).ok());
}

TEST_F(DeleteTest, TheObjectsOfABuildThatIsStillUploadedElsewhereStay) {
  const TestBuild build = MakeTestBuild({});
  base_->AddFault({.call = StorageCall::kWrite,
                   .path = BuildFileId{build.id, FileKind::kSnapfile}.ObjectPath(),
                   .stall = true});
  Pause(a_, build);
  base_->AwaitStalled(1);
  ExpectRefused(b_.node->Delete(build.id, {.from_base = true}), "metadata.json is not in");
  // Leftovers of an earlier upload: what the node says that is at work on it counts for more.
  memory_.Seed(BuildFileId{build.id, FileKind::kMetadata}.ObjectPath(), "{}");
  Resume(b_, build, a_);
  ExpectRefused(b_.node->Delete(build.id, {.from_base = true}), "not DURABLE at " + a_.address);
  EXPECT_NE(memory_.Bytes(BuildFileId{build.id, FileKind::kMemfile}.ObjectPath()), std::nullopt);
  memory_.Remove(BuildFileId{build.id, FileKind::kMetadata}.ObjectPath());
  base_->ClearFaults();
  Await(a_, build, BuildState::kDurable);
  const auto deleted = b_.node->Delete(build.id, {.from_base = true});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(*deleted, 6u);
}

TEST_F(DeleteTest, LeftoversInTheBaseGoWhenToldSo) {
  const TestBuild build = MakeTestBuild({});
  memory_.Seed(BuildFileId{build.id, FileKind::kMemfile}.ObjectPath(), "half an upload");
  ExpectRefused(a_.node->Delete(build.id, {.from_base = true}), "--discard-only-copy");
  const auto deleted = a_.node->Delete(build.id, {.from_base = true, .discard_only_copy = true});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_THAT(memory_.Paths(), IsEmpty());
}

// The record goes first and the base's metadata.json next: both of what allows it to be repeated.
TEST_F(DeleteTest, WhatABaseThatFailedHasLeftIsDeletedAsTheErrorSays) {
  const TestBuild build = MakeTestBuild({});
  Pause(a_, build);
  Await(a_, build, BuildState::kDurable);
  base_->AddFault({.call = StorageCall::kDelete, .error = absl::UnavailableError("planted")});
  const auto failed = a_.node->Delete(build.id, {.from_base = true});
  EXPECT_TRUE(absl::IsUnavailable(failed.status())) << failed.status();
  EXPECT_THAT(
      std::string(failed.status().message()),
      testing::AllOf(HasSubstr("rm --from-base --discard-only-copy"), HasSubstr("planted")));
  EXPECT_TRUE(absl::IsNotFound(a_.node->GetBuild(build.id).status()));
  memory_.Remove(BuildFileId{build.id, FileKind::kMetadata}.ObjectPath());
  base_->ClearFaults();
  const auto deleted = a_.node->Delete(build.id, {.from_base = true, .discard_only_copy = true});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_THAT(memory_.Paths(), IsEmpty());
}

TEST_F(DeleteTest, ADeletionInABaseThatIsSilentEndsWithItsCaller) {
  const TestBuild build = MakeTestBuild({});
  Pause(a_, build);
  Await(a_, build, BuildState::kDurable);
  base_->AddFault({.call = StorageCall::kDelete, .stall = true});
  std::stop_source caller;
  std::thread leaves([&] {
    base_->AwaitStalled(1);
    caller.request_stop();
  });
  const auto deleted =
      a_.node->Delete(build.id, {.from_base = true, .cancellation = caller.get_token()});
  leaves.join();
  EXPECT_TRUE(absl::IsCancelled(deleted.status())) << deleted.status();
  const auto late = a_.node->Delete(
      build.id, {.from_base = true, .discard_only_copy = true, .deadline = Clock::Real().Now()});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
}

// T is in the base, and whoever paused it is gone. Its child was paused on node A, where T is just
// something that was loaded; the grandchild on node B, which was told of A only.
TEST_F(DeleteTest, AGrandchildBecomesDurableWhileItsSourceLives) {
  const TestBuild t = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &t});
  const TestBuild grandchild = MakeTestBuild({.seed = 3, .parent = &child});
  for (const auto& [kind, bytes] : t.files) {
    memory_.Seed(BuildFileId{t.id, kind}.ObjectPath(), bytes);
  }
  ASSERT_TRUE(a_.node->GetTemplate(t.id, {}).ok());
  Pause(a_, child);
  Await(a_, child, BuildState::kDurable);
  Resume(b_, child, a_);
  Pause(b_, grandchild);
  Await(b_, grandchild, BuildState::kDurable);
}

}  // namespace
}  // namespace peerchunk::test
