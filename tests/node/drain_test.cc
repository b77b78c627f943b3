// What a drain and a shutdown do about pauses and new metadata that are under way.
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/mutex.h"
#include "tests/node/running_node.h"
#include "tests/support/memory_storage.h"

namespace peerchunk::test {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

// Holds up whoever gives a file or folder one name, the last step of writing it, until it is let
// go. One at a time.
class HeldRename {
 public:
  explicit HeldRename(std::string name) : name_(std::move(name)) {
    const MutexLock lock(mutex_);
    current_ = this;
  }
  ~HeldRename() {
    LetGo();
    const MutexLock lock(mutex_);
    current_ = nullptr;
  }
  void AwaitHeld() {
    const MutexLock lock(mutex_);
    while (!held_) changed_.Wait(mutex_);
  }
  void LetGo() {
    const MutexLock lock(mutex_);
    let_go_ = true;
    changed_.NotifyAll();
  }

  static void Pass(const char* name) {
    const MutexLock lock(mutex_);
    if (current_ == nullptr || current_->name_ != name) return;
    HeldRename& held = *current_;
    held.held_ = true;
    changed_.NotifyAll();
    while (!held.let_go_) changed_.Wait(mutex_);
  }

 private:
  inline static Mutex mutex_;
  inline static CondVar changed_;
  inline static HeldRename* current_ PEERCHUNK_GUARDED_BY(mutex_) = nullptr;
  const std::string name_;
  bool held_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool let_go_ PEERCHUNK_GUARDED_BY(mutex_) = false;
};

class DrainTest : public testing::Test {
 protected:
  absl::Status Pause(const TestBuild& build) {
    return node_->node->Pause(build.id, build.WriteTo(dir_, "in-" + build.id.ToString())).status();
  }
  bool InBase(const TestBuild& build, FileKind kind, const std::string& bytes) const {
    return memory_->Bytes(BuildFileId{build.id, kind}.ObjectPath()) == bytes;
  }
  void AwaitDraining() {
    const TestBuild other = MakeTestBuild({.memfile_bytes = 0, .seed = 77});
    const SnapshotFiles none;  // Refused one way or the other.
    while (!absl::IsUnavailable(node_->node->Pause(other.id, none).status())) {
      std::this_thread::yield();
    }
  }

  TempDir dir_;
  std::shared_ptr<MemoryStorageProvider> memory_ = std::make_shared<MemoryStorageProvider>();
  std::optional<RunningNode> node_{std::in_place, dir_.PathOf("node"), memory_};
  const TestBuild build_ = MakeTestBuild({});
};

TEST_F(DrainTest, APauseUnderWayIsNamedAtTheDeadline) {
  HeldRename naming(build_.id.ToString());
  std::thread pause([&] { EXPECT_TRUE(Pause(build_).ok()); });
  naming.AwaitHeld();
  EXPECT_THAT(node_->node->ListBuilds(), IsEmpty());
  const auto left = node_->node->Drain(absl::InfinitePast());
  naming.LetGo();
  pause.join();
  ASSERT_THAT(left, SizeIs(1));
  EXPECT_EQ(left[0].id, build_.id);
  EXPECT_EQ(left[0].state, BuildState::kUnknown);
  EXPECT_TRUE(left[0].changing);
  EXPECT_EQ(left[0].reason, "its pause is under way");
  node_->Settle();  // It was let in, and so it is uploaded.
  EXPECT_TRUE(InBase(build_, FileKind::kMetadata, build_.files.at(FileKind::kMetadata)));
}

TEST_F(DrainTest, APauseUnderWayIsWaitedForAndUploaded) {
  HeldRename naming(build_.id.ToString());
  std::thread pause([&] { EXPECT_TRUE(Pause(build_).ok()); });
  naming.AwaitHeld();
  std::thread lets_go([&] {
    AwaitDraining();
    naming.LetGo();
  });
  EXPECT_THAT(node_->node->Drain(Clock::Real().Now() + kPatience), IsEmpty());
  EXPECT_TRUE(InBase(build_, FileKind::kMetadata, build_.files.at(FileKind::kMetadata)));
  lets_go.join();
  pause.join();
}

TEST_F(DrainTest, APauseThatEndsAfterTheShutdownIsKeptForTheNextStart) {
  {
    HeldRename naming(build_.id.ToString());
    std::thread pause([&] { EXPECT_TRUE(Pause(build_).ok()); });
    naming.AwaitHeld();
    node_->StopServing();
    node_->node->Shutdown(absl::InfinitePast());
    naming.LetGo();
    pause.join();
  }
  EXPECT_EQ(node_->node->GetBuild(build_.id)->state, BuildState::kLocal);
  EXPECT_THAT(node_->node->Drain(absl::InfiniteFuture()), SizeIs(1));  // Nobody uploads any more.
  node_.reset();
  node_.emplace(dir_.PathOf("node"), memory_);
  node_->Settle();
  EXPECT_TRUE(InBase(build_, FileKind::kMetadata, build_.files.at(FileKind::kMetadata)));
}

TEST_F(DrainTest, NewMetadataIsWaitedForLikeAPauseAndRefusedLikeOne) {
  const std::string second = "{\"v\":2}";
  ASSERT_TRUE(Pause(build_).ok());
  while (node_->node->GetBuild(build_.id)->state != BuildState::kDurable) std::this_thread::yield();
  HeldRename naming("record.json");  // Of the replacement alone: the upload has written its last.
  std::thread replace([&] { EXPECT_TRUE(node_->node->ReplaceMetadata(build_.id, second).ok()); });
  naming.AwaitHeld();
  const auto left = node_->node->Drain(absl::InfinitePast());
  ASSERT_THAT(left, SizeIs(1));
  EXPECT_TRUE(left[0].changing);
  EXPECT_EQ(left[0].reason, "its metadata.json is being replaced");
  EXPECT_TRUE(absl::IsUnavailable(node_->node->ReplaceMetadata(build_.id, "{\"v\":3}")));
  naming.LetGo();
  replace.join();
  node_->Settle();
  EXPECT_TRUE(InBase(build_, FileKind::kMetadata, second));
}

}  // namespace
}  // namespace peerchunk::test

// In place of the C library's, for the whole of this program.
extern "C" int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  peerchunk::test::HeldRename::Pass(to);
  return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, 0));
}
