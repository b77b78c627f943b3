#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "peerchunk/template/template_cache.h"
#include "tests/build/held_executor.h"
#include "tests/support/memory_storage.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {
namespace {

// What should be known of one build, in the simplest terms.
struct Model {
  BuildState state = BuildState::kLocal;
  std::set<FileKind> in_base;  // Without metadata.json.
  uint64_t metadata_version = 1;
  uint64_t metadata_in_base = 0;
  uint64_t attempts = 0;
  std::string metadata;

  bool held_by_base() const {
    return state == BuildState::kDurable && metadata_in_base == metadata_version;
  }
};

// Random operations on a registry and a template cache under a small budget, step by step against
// the model. One thread; the executor's tasks run between the steps.
class RegistryModelTest : public testing::TestWithParam<uint32_t> {
 protected:
  static constexpr uint64_t kCapacity = 200 * kKiB;
  static constexpr uint64_t kBesideDiffs = 32 * kPageBytes;  // Most that a build here has.

  RegistryModelTest() : random_(GetParam()) {
    for (uint32_t i = 0; i < 8; ++i) {
      builds_.push_back(MakeTestBuild({.memfile_bytes = i % 4 == 3 ? 0 : 10 * kPageBytes,
                                       .rootfs_bytes = 10 * kPageBytes,
                                       .seed = 10 * GetParam() + i}));
      paths_.push_back(builds_.back().WriteTo(dir_, "in-" + std::to_string(i)));
    }
    Open();
  }
  ~RegistryModelTest() override {
    pins_.clear();
    cache_ = nullptr;
  }

  void Open() {
    cache_ = nullptr;
    registry_ = nullptr;
    held_.RunAll();
    auto registry = BuildRegistry::Open(
        {.folder = dir_.PathOf("builds"), .clock = &clock_, .executor = &held_});
    ASSERT_OK(registry);
    registry_ = *std::move(registry);
    EXPECT_TRUE(registry_->StartupReport().empty());
    TemplateCache::Options options;
    options.cache_folder = dir_.PathOf("chunks");
    options.cache_capacity_bytes = kCapacity;
    options.max_templates = 3;
    options.open_provider = [this](const BuildId&, const std::vector<std::string>&) {
      return absl::StatusOr<std::shared_ptr<StorageProvider>>(memory_);
    };
    options.registry = registry_.get();
    options.executor = &held_;
    options.clock = &clock_;
    auto cache = TemplateCache::Open(std::move(options));
    ASSERT_OK(cache);
    cache_ = *std::move(cache);
  }

  void Step();
  void Check();
  void CheckResolve(const TestBuild& build, FileKind kind, const Model* model);
  const std::string& BytesOf(const TestBuild& build, FileKind kind, const Model& model) {
    return kind == FileKind::kMetadata ? model.metadata : build.files.at(kind);
  }
  void Expect(const absl::Status& status, bool allowed) {
    EXPECT_EQ(status.code(),
              allowed ? absl::StatusCode::kOk : absl::StatusCode::kFailedPrecondition)
        << status;
  }
  // Eviction is the one thing that happens by itself, and only to what the base holds.
  void LearnEvictions() {
    held_.RunAll();
    for (size_t i = 0; i < builds_.size(); ++i) {
      const auto model = models_.find(i);
      if (model == models_.end() || registry_->Find(builds_[i].id) != nullptr) continue;
      EXPECT_TRUE(model->second.held_by_base()) << "build " << i << " was lost";
      ++evictions_;
      models_.erase(model);
    }
  }

  std::mt19937 random_;
  TempDir dir_{TempDir::Place::kMemory};
  SimulatedClock clock_;
  HeldExecutor held_;
  std::shared_ptr<MemoryStorageProvider> memory_ = std::make_shared<MemoryStorageProvider>(clock_);
  std::vector<TestBuild> builds_;
  std::vector<SnapshotFiles> paths_;
  std::map<size_t, Model> models_;
  std::set<size_t> discarded_;
  std::map<size_t, uint64_t> sequences_;
  std::vector<std::pair<std::shared_ptr<BuildFile>, std::string>> pins_;
  std::unique_ptr<BuildRegistry> registry_;
  std::unique_ptr<TemplateCache> cache_;
  int evictions_ = 0;
};

void RegistryModelTest::Step() {
  const size_t i = random_() % builds_.size();
  const TestBuild& build = builds_[i];
  const auto found = models_.find(i);
  if (found == models_.end()) {
    if (random_() % 3 != 0) return;
    ASSERT_OK(registry_->Add(build.id, paths_[i], random_() % 4 == 0));
    discarded_.erase(i);
    models_[i].metadata = build.files.at(FileKind::kMetadata);
    EXPECT_OK(cache_->AddSnapshot(build.id, {}));
    return;
  }
  Model& model = found->second;
  const BuildState state = model.state;
  const bool uploading = state == BuildState::kUploading;
  const bool durable = state == BuildState::kDurable;
  switch (random_() % 14) {
    case 0:
      EXPECT_EQ(CodeOf(registry_->Add(build.id, paths_[i], false)),
                absl::StatusCode::kAlreadyExists);
      break;
    case 1:
      Expect(registry_->MarkUploading(build.id), uploading || state == BuildState::kLocal);
      if (state == BuildState::kLocal) model.state = BuildState::kUploading;
      break;
    case 2:
    case 3:
    case 4: {
      auto file = build.files.begin();
      std::advance(file, random_() % build.files.size());
      if (file->first == FileKind::kMetadata) break;
      Expect(registry_->ConfirmInBase({build.id, file->first}), uploading || durable);
      if (uploading) model.in_base.insert(file->first);
      break;
    }
    case 5: {
      const bool all = model.in_base.size() + 1 == build.files.size();
      Expect(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, model.metadata_version),
             (uploading || durable) && all);
      if ((uploading || durable) && all) model.metadata_in_base = model.metadata_version;
      cache_->UpdatePins(build.id);
      break;
    }
    case 6: {
      const bool all = model.in_base.size() + 1 == build.files.size() && model.metadata_in_base > 0;
      Expect(registry_->MarkDurable(build.id), durable || (uploading && all));
      if (uploading && all) {
        model.state = BuildState::kDurable;
        for (const auto& [kind, bytes] : build.files) {
          memory_->Seed(BuildFileId{build.id, kind}.ObjectPath(), BytesOf(build, kind, model));
        }
        cache_->UpdatePins(build.id);
      }
      break;
    }
    case 7:
      if (random_() % 4 != 0) break;
      Expect(registry_->MarkFailed(build.id, "planted"), !durable);
      if (!durable) model.state = BuildState::kFailed;
      break;
    case 8:
      Expect(registry_->Retry(build.id), state == BuildState::kFailed);
      if (state == BuildState::kFailed) {
        model.state = BuildState::kLocal;
        model.attempts = 0;
      }
      break;
    case 9:
      Expect(registry_->RecordAttempt(build.id, absl::UnavailableError("planted")),
             state != BuildState::kFailed);
      if (state != BuildState::kFailed) ++model.attempts;
      break;
    case 10:
      if (random_() % 3 != 0) break;
      model.metadata =
          "{\"filesystem_only\":" + std::string(build.filesystem_only() ? "true" : "false") +
          ",\"n\":" + std::to_string(random_()) + "}";
      ++model.metadata_version;
      ASSERT_OK(registry_->ReplaceMetadata(build.id, model.metadata));
      cache_->UpdatePins(build.id);
      break;
    case 11:
      if (random_() % 8 != 0) break;
      ASSERT_OK(registry_->Remove(build.id));
      cache_->Evict(build.id);
      if (!durable) discarded_.insert(i);
      models_.erase(found);
      break;
    case 12: {
      auto file = build.files.begin();
      std::advance(file, random_() % build.files.size());
      const auto served = cache_->Resolve({build.id, file->first}, true, true);
      ASSERT_OK(served);
      if (pins_.size() < 6) {
        pins_.emplace_back(served->file, BytesOf(build, file->first, model));
      } else {
        pins_.clear();
      }
      break;
    }
    case 13:
      if (random_() % 10 != 0) break;
      pins_.clear();
      Open();
      for (auto& [other, restarted] : models_) {
        if (restarted.state != BuildState::kFailed) continue;
        restarted.state = BuildState::kLocal;
        restarted.attempts = 0;
      }
      sequences_.clear();
      break;
  }
}

void RegistryModelTest::CheckResolve(const TestBuild& build, FileKind kind, const Model* model) {
  const bool even_if_durable = random_() % 2 == 0;
  const auto served = cache_->Resolve({build.id, kind}, even_if_durable, true);
  ASSERT_OK(served);
  if (model == nullptr) {  // Blobs may still be in memory, and diffs in a chunk cache.
    EXPECT_EQ(served->head.status.state,
              discarded_.contains(static_cast<size_t>(&build - builds_.data()))
                  ? BuildState::kFailed
                  : BuildState::kUnknown);
    return;
  }
  EXPECT_EQ(served->head.status.state, model->state);
  if (!build.files.contains(kind)) {
    EXPECT_EQ(served->head.availability, Availability::kAbsent);
    return;
  }
  const bool in_base = kind == FileKind::kMetadata
                           ? model->metadata_in_base == model->metadata_version
                           : model->in_base.contains(kind);
  EXPECT_EQ(served->head.in_base, in_base);
  if (model->state == BuildState::kDurable && in_base && !even_if_durable) {
    EXPECT_EQ(served->head.availability, Availability::kUseStorage);
    return;
  }
  EXPECT_EQ(served->head.availability, Availability::kAvailable);
  const std::string& bytes = BytesOf(build, kind, *model);
  std::string got(bytes.size() + 1, '?');
  const auto length = served->file->ReadAt(0, absl::MakeSpan(got), {});
  ASSERT_OK(length);
  got.resize(*length);
  EXPECT_TRUE(got == bytes);
}

void RegistryModelTest::Check() {
  LearnEvictions();
  uint64_t only_copies = 0;
  for (size_t i = 0; i < builds_.size(); ++i) {
    const auto model = models_.find(i);
    const auto found = registry_->Find(builds_[i].id);
    ASSERT_EQ(found != nullptr, model != models_.end());
    if (found != nullptr) {
      ASSERT_EQ(found->status.state, model->second.state);
      ASSERT_EQ(found->upload_attempts, model->second.attempts);
      ASSERT_EQ(found->metadata_version, model->second.metadata_version);
      ASSERT_EQ(found->metadata_version_in_base, model->second.metadata_in_base);
      ASSERT_GE(found->status.sequence, sequences_[i]);
      sequences_[i] = found->status.sequence;
      if (!model->second.held_by_base()) {
        only_copies += 2 * kPageBytes;  // Record and checksums.
        for (const auto& [kind, file] : found->files) {
          only_copies += RoundUp(file.checksums->size, kPageBytes);
        }
      }
    }
    ASSERT_NO_FATAL_FAILURE(CheckResolve(builds_[i], kAllFileKinds[random_() % 6],
                                         model == models_.end() ? nullptr : &model->second));
  }
  uint64_t pinned = 0;
  for (const auto& [pin, bytes] : pins_) {
    pinned += RoundUp(bytes.size(), kPageBytes) + kBesideDiffs;
    std::string got(bytes.size() + 1, '?');
    const auto length = pin->ReadAt(0, absl::MakeSpan(got), {});
    ASSERT_OK(length);
    got.resize(*length);
    ASSERT_TRUE(got == bytes) << pin->id().ObjectPath();
  }
  cache_->Trim();
  held_.RunAll();
  EXPECT_LE(cache_->BuildStore().AllocatedBytes(), std::max(kCapacity, only_copies + pinned));
}

TEST_P(RegistryModelTest, RandomOperationsAgreeWithTheModel) {
  for (int step = 0; step < 2500; ++step) {
    SCOPED_TRACE(step);
    ASSERT_NO_FATAL_FAILURE(Step());
    ASSERT_NO_FATAL_FAILURE(Check());
    if (HasFailure()) break;
  }
  EXPECT_GT(evictions_, 10) << "the budget was never short";
}

INSTANTIATE_TEST_SUITE_P(Seeds, RegistryModelTest, testing::Range(1u, 5u));

}  // namespace
}  // namespace peerchunk::test
