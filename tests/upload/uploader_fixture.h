#pragma once

#include <fcntl.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/mutex.h"
#include "peerchunk/upload/uploader.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {

// A registry, and an uploader over a base in memory that can be made to fail. Nobody waits for
// time: the clock jumps.
class UploaderTest : public testing::Test {
 protected:
  UploaderTest() {
    clock_.AdvanceOnWait();
    options_.clock = &clock_;
    options_.metrics = &metrics_;
    options_.on_durable = [this](const BuildId& id) {
      const MutexLock lock(mutex_);
      durable_.push_back(id);
    };
    options_.on_confirmed = [this](const BuildId& id) {
      if (HeldByBase(*registry_->Find(id))) ++held_;
    };
    OpenRegistry();
  }
  ~UploaderTest() override { uploader_ = nullptr; }

  void OpenRegistry() {
    registry_ = nullptr;
    auto opened =
        BuildRegistry::Open({.folder = dir_.PathOf("builds"), .clock = &clock_, .base = base_});
    ASSERT_OK(opened);
    registry_ = *std::move(opened);
  }
  void Start() { Start(faults_); }
  void Start(StorageProvider& base) {
    auto started = Uploader::Start(registry_.get(), &base, options_);
    ASSERT_OK(started);
    uploader_ = *std::move(started);
  }
  // As a crash and a new process would, at a moment when nothing is half-recorded.
  void Restart() {
    uploader_ = nullptr;
    OpenRegistry();
    Start();
  }
  std::vector<BuildId> Finish() { return uploader_->WaitIdle(absl::InfiniteFuture()); }

  TestBuild Make(uint32_t seed, const TestBuild* parent = nullptr) {
    return MakeTestBuild(
        {.memfile_bytes = kMiB + 4096, .rootfs_bytes = 64 * kKiB, .seed = seed, .parent = parent});
  }
  void Pause(const TestBuild& build) {
    ASSERT_OK(registry_->Add(build.id, build.WriteTo(dir_, "in-" + build.id.ToString()), false));
  }
  static std::string Path(const TestBuild& build, FileKind kind) {
    return BuildFileId{build.id, kind}.ObjectPath();
  }
  BuildState StateOf(const TestBuild& build) { return registry_->Find(build.id)->status.state; }
  std::string ReasonOf(const TestBuild& build) { return registry_->Find(build.id)->reason; }

  // True when every object of the build is in the base, with the right bytes.
  bool Complete(const TestBuild& build) {
    for (const auto& [kind, bytes] : build.files) {
      if (memory_.Bytes(Path(build, kind)) != bytes) return false;
    }
    return true;
  }
  std::string VersionInBase(const TestBuild& build) {
    auto stat = (*memory_.OpenBlob(Path(build, FileKind::kMetadata)))->Stat(ReadOptions{});
    return stat.ok() ? stat->metadata["peerchunk-version"] : stat.status().ToString();
  }
  uint64_t Attempts(const char* outcome) {
    return metrics_.CounterValue("peerchunk_upload_attempts_total", {{"outcome", outcome}});
  }
  std::vector<BuildId> durable() {
    const MutexLock lock(mutex_);
    return durable_;
  }

  TempDir dir_{TempDir::Place::kMemory};
  SimulatedClock clock_;
  Metrics metrics_;
  MemoryStorageProvider memory_{clock_};
  FaultStorageProvider faults_{memory_, clock_};
  std::string base_ = memory_.Describe();
  Uploader::Options options_;
  std::atomic<int> held_{0};  // How often the base was found to hold a build.
  Mutex mutex_;
  std::vector<BuildId> durable_ PEERCHUNK_GUARDED_BY(mutex_);
  std::unique_ptr<BuildRegistry> registry_;
  std::unique_ptr<Uploader> uploader_;
};

}  // namespace peerchunk::test
