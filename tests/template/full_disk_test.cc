#include <fcntl.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/template/template_cache.h"
#include "tests/support/memory_storage.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"
#include "tests/support/test_build.h"
#include "tests/template/small_disk.h"

namespace peerchunk::test {
namespace {

using testing::Each;
using testing::HasSubstr;

class FullDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!disk_.why_not().empty()) GTEST_SKIP() << disk_.why_not();
    Open();
  }
  void Open() {
    cache_ = nullptr;
    registry_ = nullptr;
    auto registry = BuildRegistry::Open(
        {.folder = disk_.PathOf("builds"), .clock = &clock_, .executor = &pool_});
    ASSERT_OK(registry);
    registry_ = *std::move(registry);
    TemplateCache::Options options;
    options.cache_folder = disk_.PathOf("chunks");
    options.chunks.clock = &clock_;
    options.chunks.chunk_bytes = 64 * kKiB;
    options.open_provider = [this](const BuildId&, const std::vector<std::string>&) {
      return absl::StatusOr<std::shared_ptr<StorageProvider>>(memory_);
    };
    options.registry = registry_.get();
    options.executor = &pool_;
    options.clock = &clock_;
    auto cache = TemplateCache::Open(std::move(options));
    ASSERT_OK(cache);
    cache_ = *std::move(cache);
  }
  absl::Status Add(const TestBuild& build) {
    return registry_->Add(build.id, build.WriteTo(dir_, build.id.ToString()), false).status();
  }
  void ExpectServed(const TestBuild& build) {
    for (const auto& [kind, bytes] : build.files) {
      const auto served = cache_->Resolve({build.id, kind}, true, true);
      ASSERT_OK(served);
      ASSERT_NE(served->file, nullptr);
      std::string got(bytes.size() + 1, '?');
      const auto length = served->file->ReadAt(0, absl::MakeSpan(got), {});
      ASSERT_OK(length);
      got.resize(*length);
      EXPECT_TRUE(got == bytes);
    }
  }
  static TestBuild Make(uint32_t seed) {
    return MakeTestBuild({.memfile_bytes = kMiB, .rootfs_bytes = kMiB, .seed = seed});
  }

  SmallDisk disk_{6 * kMiB};
  TempDir dir_{TempDir::Place::kMemory};
  SimulatedClock clock_;
  std::shared_ptr<MemoryStorageProvider> memory_ = std::make_shared<MemoryStorageProvider>(clock_);
  ThreadPool pool_{"disk", 2};
  std::unique_ptr<BuildRegistry> registry_;
  std::unique_ptr<TemplateCache> cache_;
};

TEST_F(FullDiskTest, APauseThatDoesNotFitIsRefusedAndNothingIsLeftOrLost) {
  std::vector<TestBuild> builds;
  absl::Status status;
  for (uint32_t seed = 1; status.ok(); ++seed) {
    builds.push_back(Make(seed));
    status = Add(builds.back());
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("No space left"));
  const TestBuild refused = builds.back();
  builds.pop_back();
  ASSERT_GE(builds.size(), 2u);
  EXPECT_EQ(registry_->Find(refused.id), nullptr);
  EXPECT_THAT(File::Open(disk_.PathOf("builds"), O_RDONLY | O_DIRECTORY)->List().value(),
              Each(testing::Not(HasSubstr(refused.id.ToString()))));
  for (const TestBuild& build : builds) ExpectServed(build);
  Open();
  for (const TestBuild& build : builds) ExpectServed(build);

  ASSERT_OK(registry_->Remove(builds[0].id));
  cache_->Evict(builds[0].id);
  EXPECT_OK(Add(refused)) << "once there is room";
}

TEST_F(FullDiskTest, AnUploadCanStillEnd) {
  const TestBuild build = Make(1);
  ASSERT_OK(Add(build));
  disk_.Fill();
  ASSERT_OK(registry_->MarkUploading(build.id));
  disk_.Fill();  // What the reserve gave back and was not needed.
  for (const auto& [kind, bytes] : build.files) {
    if (kind == FileKind::kMetadata) continue;
    ASSERT_OK(registry_->ConfirmInBase({build.id, kind}));
  }
  ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 1));
  ASSERT_OK(registry_->MarkDurable(build.id));
  ExpectServed(build);
  Open();
  EXPECT_EQ(registry_->Find(build.id)->status.state, BuildState::kDurable);
}

TEST_F(FullDiskTest, MetadataThatDoesNotFitReplacesNothing) {
  const TestBuild build = Make(1);
  ASSERT_OK(Add(build));
  disk_.Fill();
  const std::string large = "{\"large\":\"" + std::string(100'000, 'x') + "\"}";
  EXPECT_EQ(registry_->ReplaceMetadata(build.id, large).code(),
            absl::StatusCode::kResourceExhausted);
  ExpectServed(build);
  disk_.Free();
  EXPECT_OK(registry_->ReplaceMetadata(build.id, large));
}

TEST_F(FullDiskTest, BlockChecksumsThatCannotBeKeptAreMadeAgainEachTime) {
  const TestBuild build = Make(1);
  ASSERT_OK(Add(build));
  unlink(disk_.PathOf("builds/" + build.id.ToString() + "/blocks.crc").c_str());
  for (int i = 0; i < 2; ++i) {
    cache_ = nullptr;
    registry_ = nullptr;
    unlink(disk_.PathOf("builds/.reserve").c_str());
    disk_.Fill();
    Open();
    ASSERT_NE(registry_->Find(build.id), nullptr);
    EXPECT_THAT(registry_->StartupReport(), testing::Contains(HasSubstr("could not be kept")));
    ExpectServed(build);
  }
}

TEST_F(FullDiskTest, AGuestsReadDoesNotFail) {
  const TestBuild build = Make(1);
  for (const auto& [kind, bytes] : build.files) {
    memory_->Seed(BuildFileId{build.id, kind}.ObjectPath(), bytes);
  }
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  disk_.Fill();
  std::string got(build.memfile.size(), '?');
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK((*loaded)->Memfile()->ReadAt(0, absl::MakeSpan(got), {}));
    EXPECT_TRUE(got == build.memfile);
    disk_.Free();
    clock_.Advance(absl::Seconds(2));
  }
  EXPECT_GT(cache_->BuildStore().AllocatedBytes(), 0u) << "cached once there is room";
}

}  // namespace
}  // namespace peerchunk::test
