#pragma once

#include <fcntl.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/mutex.h"
#include "peerchunk/peer/peer_directory.h"
#include "peerchunk/template/template_cache.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/simulated_peer.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {

inline absl::StatusOr<std::string> ReadWhole(BuildFile& file) {
  std::string bytes(file.size() + 1, '?');
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(0, absl::MakeSpan(bytes), {}));
  bytes.resize(got);
  return bytes;
}

inline absl::StatusOr<std::string> ReadWhole(Device& device) {
  std::string bytes(device.size() + 1, '?');
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, device.ReadAt(0, absl::MakeSpan(bytes), {}));
  bytes.resize(got);
  return bytes;
}

inline void ExpectShows(Template& loaded, const TestBuild& build) {
  EXPECT_EQ(loaded.id(), build.id);
  EXPECT_EQ(loaded.MetadataFile(), build.files.at(FileKind::kMetadata));
  EXPECT_EQ(loaded.filesystem_only(), build.filesystem_only());
  const auto rootfs = ReadWhole(loaded.Rootfs());
  ASSERT_OK(rootfs);
  EXPECT_TRUE(*rootfs == build.rootfs);
  if (loaded.filesystem_only()) return;
  EXPECT_EQ(*loaded.Snapfile(), build.files.at(FileKind::kSnapfile));
  const auto memfile = ReadWhole(*loaded.Memfile());
  ASSERT_OK(memfile);
  EXPECT_TRUE(*memfile == build.memfile);
}

// A template cache with a registry, over a base in memory that can be made to fail. Providers are
// the base whatever the sources, unless a test sets a directory; the sources are kept.
class TemplateCacheTest : public testing::Test {
 protected:
  TemplateCacheTest() { Open(); }
  ~TemplateCacheTest() override { Close(); }

  void Open() {
    auto registry = BuildRegistry::Open(
        {.folder = dir_.PathOf("builds"), .clock = &clock_, .executor = &pool_});
    ASSERT_OK(registry);
    registry_ = *std::move(registry);
    OpenCache();
  }
  void OpenCache() {
    cache_ = nullptr;
    TemplateCache::Options options = options_;
    options.cache_folder = dir_.PathOf("chunks");
    options.chunks.chunk_bytes = 64 * kKiB;
    options.chunks.clock = &clock_;
    options.open_provider = [this](const BuildId& build, const std::vector<std::string>& addresses)
        -> absl::StatusOr<std::shared_ptr<StorageProvider>> {
      const MutexLock lock(mutex_);
      opened_.emplace_back(build, addresses);
      if (!provider_error_.ok()) return provider_error_;
      if (directory_ != nullptr) return directory_->OpenBuild(build, addresses, faults_);
      return faults_;
    };
    options.registry = registry_.get();
    if (options.executor == nullptr) options.executor = &pool_;
    options.clock = &clock_;
    options.metrics = &metrics_;
    auto cache = TemplateCache::Open(std::move(options));
    ASSERT_OK(cache);
    cache_ = *std::move(cache);
  }
  void Close() {
    cache_ = nullptr;
    registry_ = nullptr;
  }

  // Has providers read peers too: those on the network that is returned.
  std::shared_ptr<SimulatedNetwork> ConnectPeers() {
    auto network = std::make_shared<SimulatedNetwork>(clock_);
    auto directory = PeerDirectory::Create({.policy = *AddressPolicy::Create({}),
                                            .connector = network,
                                            .clock = &clock_,
                                            .metrics = &metrics_});
    EXPECT_OK(directory);
    directory_ = *std::move(directory);
    return network;
  }

  void Seed(const TestBuild& build) {
    for (const auto& [kind, bytes] : build.files) {
      memory_.Seed(BuildFileId{build.id, kind}.ObjectPath(), bytes);
    }
  }
  void Pause(const TestBuild& build) {
    ASSERT_OK(registry_->Add(build.id, build.WriteTo(dir_, "in-" + build.id.ToString()), false));
  }
  void MakeDurable(const TestBuild& build) {
    Seed(build);
    ASSERT_OK(registry_->MarkUploading(build.id));
    for (const auto& [kind, bytes] : build.files) {
      if (kind == FileKind::kMetadata) continue;
      ASSERT_OK(registry_->ConfirmInBase({build.id, kind}));
    }
    ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 1));
    ASSERT_OK(registry_->MarkDurable(build.id));
  }
  std::vector<std::string> AddressesUsedFor(const BuildId& build) {
    const MutexLock lock(mutex_);
    for (const auto& [opened, addresses] : opened_) {
      if (opened == build) return addresses;
    }
    return {"never opened"};
  }
  void RefuseProviders(absl::Status error) {
    const MutexLock lock(mutex_);
    provider_error_ = std::move(error);
  }

  TempDir dir_{TempDir::Place::kMemory};
  SimulatedClock clock_;
  Metrics metrics_;
  MemoryStorageProvider memory_{clock_};
  std::shared_ptr<FaultStorageProvider> faults_ =
      std::make_shared<FaultStorageProvider>(memory_, clock_);
  TemplateCache::Options options_;            // What a test sets differently.
  std::unique_ptr<PeerDirectory> directory_;  // When set, providers read peers too.

  Mutex mutex_;
  std::vector<std::pair<BuildId, std::vector<std::string>>> opened_ PEERCHUNK_GUARDED_BY(mutex_);
  absl::Status provider_error_ PEERCHUNK_GUARDED_BY(mutex_);

  ThreadPool pool_{"cache", 4};
  std::unique_ptr<BuildRegistry> registry_;
  std::unique_ptr<TemplateCache> cache_;
};

}  // namespace peerchunk::test
