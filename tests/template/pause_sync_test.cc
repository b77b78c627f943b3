// What is on the disk, as far as the kernel was asked, when a pause returns and when its background
// work is done: a test that runs in a process cannot cut the power, so it watches who is synced.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/mutex.h"
#include "peerchunk/template/build_registry.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {
namespace {

using testing::Contains;
using testing::IsEmpty;
using testing::Not;

struct Watched {
  Mutex mutex;
  std::vector<std::string> paths PEERCHUNK_GUARDED_BY(mutex);  // As they were called then.
  bool fails PEERCHUNK_GUARDED_BY(mutex) = false;
};
Watched& Syncs() {
  static Watched watched;
  return watched;
}

}  // namespace
}  // namespace peerchunk::test

// Takes the place of libc's in this program.
extern "C" int fsync(int fd) {
  auto& syncs = peerchunk::test::Syncs();
  {
    std::error_code error;
    const auto path =
        std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), error).string();
    const peerchunk::MutexLock lock(syncs.mutex);
    syncs.paths.push_back(path);
    if (syncs.fails) {
      errno = EIO;
      return -1;
    }
  }
  return static_cast<int>(syscall(SYS_fsync, fd));
}

namespace peerchunk::test {
namespace {

// Runs what it is given when told to.
class LaterExecutor final : public Executor {
 public:
  void Run(Priority, std::function<void()> task) override { tasks_.push_back(std::move(task)); }
  void RunAll() {
    for (const auto& task : std::exchange(tasks_, {})) task();
  }
  void Drop() { tasks_.clear(); }

 private:
  std::vector<std::function<void()>> tasks_;
};

class PauseSyncTest : public testing::Test {
 protected:
  PauseSyncTest() { Open(); }
  ~PauseSyncTest() override { Fail(false); }

  void Open() {
    registry_ = nullptr;
    auto opened = BuildRegistry::Open(
        {.folder = dir_.PathOf("builds"), .executor = &later_, .metrics = &metrics_});
    ASSERT_OK(opened);
    registry_ = *std::move(opened);
  }
  void Pause(bool sync) {
    Take();
    ASSERT_OK(registry_->Add(build_.id, build_.WriteTo(dir_, "in"), sync));
  }
  static std::vector<std::string> Take() {
    const MutexLock lock(Syncs().mutex);
    return std::exchange(Syncs().paths, {});
  }
  static void Fail(bool fails) {
    const MutexLock lock(Syncs().mutex);
    Syncs().fails = fails;
  }
  std::string Builds() const { return dir_.PathOf("builds"); }
  std::string Folder() const { return Builds() + "/" + build_.id.ToString(); }
  std::string Pausing() const { return Builds() + "/.pause-" + build_.id.ToString(); }
  // Every file, then the folder that names them, then the folder that names that one.
  void ExpectAllSynced(const std::vector<std::string>& synced, const std::string& folder) {
    std::vector<std::string> names = {"record.json", "blocks.crc"};
    for (const auto& [kind, bytes] : build_.files) names.emplace_back(FileName(kind));
    const auto position = [&](const std::string& path) {
      return std::find(synced.begin(), synced.end(), path) - synced.begin();
    };
    for (const std::string& name : names) {
      EXPECT_THAT(synced, Contains(folder + "/" + name));
      EXPECT_LT(position(folder + "/" + name), position(folder));
    }
    EXPECT_THAT(synced, Contains(folder));
    ASSERT_FALSE(synced.empty());
    EXPECT_EQ(synced.back(), Builds()) << "once the build has its name";
  }

  TempDir dir_{TempDir::Place::kMemory};
  TestBuild build_ = MakeTestBuild({});
  Metrics metrics_;
  LaterExecutor later_;
  std::unique_ptr<BuildRegistry> registry_;
};

TEST_F(PauseSyncTest, WithSyncEverythingIsOnTheDiskWhenPauseReturns) {
  Pause(/*sync=*/true);
  ExpectAllSynced(Take(), Pausing());
  later_.RunAll();
  EXPECT_THAT(Take(), IsEmpty());
}

TEST_F(PauseSyncTest, WithoutSyncItIsOnceTheBackgroundWorkIsDone) {
  Pause(/*sync=*/false);
  EXPECT_THAT(Take(), IsEmpty()) << "nothing that a paused guest waits for";
  later_.RunAll();
  ExpectAllSynced(Take(), Folder());
}

TEST_F(PauseSyncTest, WithoutAnExecutorPauseWaits) {
  registry_ = nullptr;
  registry_ = *BuildRegistry::Open({.folder = Builds()});
  Pause(/*sync=*/false);
  ExpectAllSynced(Take(), Pausing());
}

TEST_F(PauseSyncTest, WhatMayNotHaveBeenSyncedIsSyncedAfterTheNextStart) {
  Pause(/*sync=*/false);
  Take();
  later_.Drop();  // The process ended before.
  Open();
  later_.RunAll();
  ExpectAllSynced(Take(), Folder());

  ASSERT_OK(registry_->MarkUploading(build_.id));
  for (const auto& [kind, bytes] : build_.files) {
    if (kind == FileKind::kMetadata) continue;
    ASSERT_OK(registry_->ConfirmInBase({build_.id, kind}));
  }
  ASSERT_OK(registry_->ConfirmInBase({build_.id, FileKind::kMetadata}, 1));
  ASSERT_OK(registry_->MarkDurable(build_.id));
  Take();
  Open();
  later_.RunAll();
  EXPECT_THAT(Take(), Not(Contains(Folder()))) << "the base has it";
}

TEST_F(PauseSyncTest, ASyncThatFailsIsCountedOrRefusesThePause) {
  Pause(/*sync=*/false);
  Fail(true);
  later_.RunAll();
  EXPECT_EQ(metrics_.CounterValue("peerchunk_sync_failures_total"), 1u);
  Fail(false);
  ASSERT_OK(registry_->Remove(build_.id));
  Fail(true);
  EXPECT_FALSE(registry_->Add(build_.id, build_.WriteTo(dir_, "again"), /*sync=*/true).ok());
  EXPECT_EQ(registry_->Find(build_.id), nullptr);
}

}  // namespace
}  // namespace peerchunk::test
