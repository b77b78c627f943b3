// What a node's options and calls mean to its uploads.
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/node/running_node.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"

namespace peerchunk::test {
namespace {

class NodeUploadsTest : public testing::Test {
 protected:
  void Pause(RunningNode& on, const TestBuild& build) {
    const auto paused = on.node->Pause(build.id, build.WriteTo(dir_, build.id.ToString()));
    ASSERT_TRUE(paused.ok()) << paused.status();
  }
  static void Await(RunningNode& on, const TestBuild& build, BuildState state) {
    while (on.node->GetBuild(build.id)->state != state) std::this_thread::yield();
  }

  TempDir dir_;
  MemoryStorageProvider memory_;
  std::shared_ptr<FaultStorageProvider> base_ = std::make_shared<FaultStorageProvider>(memory_);
};

TEST_F(NodeUploadsTest, AsManyBuildsAreUploadedAtOnceAsSaid) {
  base_->AddFault({.call = StorageCall::kWrite, .stall = true});
  NodeOptions options = WithoutWorkingSets();
  options.upload_parallelism = 3;
  RunningNode node(dir_.PathOf("node"), base_, std::move(options));
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    Pause(node, MakeTestBuild({.memfile_bytes = 0, .seed = seed}));
  }
  base_->AwaitStalled(3);
  EXPECT_EQ(base_->calls(StorageCall::kWrite), 3u);
  base_->ClearFaults();
  node.Settle();
}

TEST_F(NodeUploadsTest, ARetryBringsAFailedBuildToTheBase) {
  base_->AddFault({.call = StorageCall::kWrite, .error = absl::UnavailableError("planted")});
  NodeOptions options = WithoutWorkingSets();
  options.upload_max_attempts = 1;
  RunningNode node(dir_.PathOf("node"), base_, std::move(options));
  const TestBuild build = MakeTestBuild({});
  Pause(node, build);
  Await(node, build, BuildState::kFailed);
  base_->ClearFaults();
  ASSERT_TRUE(node.node->Retry(build.id).ok());
  Await(node, build, BuildState::kDurable);
  EXPECT_TRUE(absl::IsFailedPrecondition(node.node->Retry(build.id)));
}

}  // namespace
}  // namespace peerchunk::test
