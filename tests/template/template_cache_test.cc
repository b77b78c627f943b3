#include "peerchunk/template/template_cache.h"

#include <algorithm>
#include <filesystem>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/build/held_executor.h"
#include "tests/template/template_cache_fixture.h"

namespace peerchunk::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(TemplateCacheTest, LoadsFromTheBaseAndKeepsIt) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  EXPECT_EQ(cache_->GetCachedTemplate(build.id), nullptr);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  ExpectShows(**loaded, build);
  EXPECT_EQ(*(*loaded)->BlobBytes(FileKind::kMemfileHeader),
            build.files.at(FileKind::kMemfileHeader));
  EXPECT_EQ((*loaded)->BlobBytes(FileKind::kMemfile), nullptr);
  const uint64_t reads = faults_->calls(StorageCall::kRead);
  EXPECT_EQ(*cache_->GetTemplate(build.id, {}, {}), *loaded);
  EXPECT_EQ(cache_->GetCachedTemplate(build.id), *loaded);
  ExpectShows(**loaded, build);
  EXPECT_EQ(faults_->calls(StorageCall::kRead), reads) << "everything is here";
  EXPECT_THAT(cache_->LoadedBuilds(), ElementsAre(build.id));
  EXPECT_EQ(metrics_.CounterValue("peerchunk_template_loads_total", {{"outcome", "ok"}}), 1u);
}

TEST_F(TemplateCacheTest, FilesystemOnlyBuildsLoad) {
  const TestBuild build = MakeTestBuild({.memfile_bytes = 0});
  Seed(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  EXPECT_TRUE((*loaded)->filesystem_only());
  EXPECT_EQ((*loaded)->Memfile(), nullptr);
  EXPECT_EQ((*loaded)->Snapfile(), nullptr);
  ExpectShows(**loaded, build);
}

// A base that has lost them shows the same files as one that never had them.
TEST_F(TemplateCacheTest, MemoryThatIsGoneIsNotTakenForAFilesystemOnlyBuild) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  for (const FileKind kind : {FileKind::kMemfile, FileKind::kMemfileHeader, FileKind::kSnapfile}) {
    memory_.Remove(BuildFileId{build.id, kind}.ObjectPath());
  }
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  EXPECT_EQ(CodeOf(loaded.status()), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("filesystem_only is not set"));
}

TEST_F(TemplateCacheTest, EachLayerIsOpenedWithItsOwnBuildAndSources) {
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild middle = MakeTestBuild({.seed = 2, .parent = &base});
  const TestBuild top = MakeTestBuild({.seed = 3, .parent = &middle});
  for (const TestBuild* build : {&base, &middle, &top}) Seed(*build);
  BuildSources sources;
  sources.default_addresses = {"10.0.0.1:1"};
  sources.by_build[middle.id] = {"10.0.0.2:1", "10.0.0.3:1"};
  sources.by_build[base.id] = {};
  const auto loaded = cache_->GetTemplate(top.id, sources, {});
  ASSERT_OK(loaded);
  ExpectShows(**loaded, top);
  EXPECT_THAT(AddressesUsedFor(top.id), ElementsAre("10.0.0.1:1"));
  EXPECT_THAT(AddressesUsedFor(middle.id), ElementsAre("10.0.0.2:1", "10.0.0.3:1"));
  EXPECT_THAT(AddressesUsedFor(base.id), IsEmpty());
  EXPECT_THAT(cache_->SourcesOf(top.id), ElementsAre("10.0.0.1:1"));
  EXPECT_THAT(cache_->SourcesOf(middle.id), ElementsAre("10.0.0.2:1", "10.0.0.3:1"));
  EXPECT_THAT(cache_->SourcesOf(MakeTestBuild({.seed = 9}).id), IsEmpty());
}

TEST_F(TemplateCacheTest, APeerWithLessOfALayerThanTheHeaderMapsIsLeftForTheBase) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  const auto network = ConnectPeers();
  for (const auto& [kind, bytes] : build.files) {
    const uint64_t missing = IsSeekable(kind) ? 1 : 0;
    network->Node("10.0.0.1:1").PutFile({build.id, kind}, bytes.substr(0, bytes.size() - missing));
  }
  const auto loaded = cache_->GetTemplate(build.id, {.default_addresses = {"10.0.0.1:1"}}, {});
  ASSERT_OK(loaded);
  ExpectShows(**loaded, build);
  EXPECT_EQ(metrics_.CounterValue("peerchunk_quarantines_total", {{"reason", "contradiction"}}),
            1u);
}

TEST_F(TemplateCacheTest, FurtherSourcesAreKeptForLayersOpenedLater) {
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild top = MakeTestBuild({.seed = 2, .parent = &base});
  Seed(base);
  Seed(top);
  BuildSources first;
  first.default_addresses = {"10.0.0.1:1"};
  const auto loaded = cache_->GetTemplate(top.id, first, {});
  ASSERT_OK(loaded);
  BuildSources more;
  more.default_addresses = {"10.0.0.1:1", "10.0.0.9:1"};
  ASSERT_OK(cache_->GetTemplate(top.id, more, {}));
  ExpectShows(**loaded, top);
  EXPECT_THAT(AddressesUsedFor(base.id), ElementsAre("10.0.0.1:1", "10.0.0.9:1"));
}

// A layer that was opened through one source, which then died; only peers have it.
class LaterSourcesTest : public TemplateCacheTest {
 protected:
  LaterSourcesTest() {
    options_.chunks.max_read_ahead_bytes = 0;
    OpenCache();
    const auto network = ConnectPeers();
    for (const char* address : {"10.0.0.1:1", "10.0.0.2:1"}) {
      for (const auto& [kind, bytes] : base_.files) {
        network->Node(address).PutFile({base_.id, kind}, bytes);
      }
    }
    for (const TestBuild* build : {&first_, &second_}) Seed(*build);
    loaded_ = *cache_->GetTemplate(first_.id, {.by_build = {{base_.id, {"10.0.0.1:1"}}}}, {});
    for (const BuildId& layer : {base_.id, first_.id}) {
      const auto mapped = loaded_->Memfile()->header().mappings();
      const auto of_layer = std::find_if(mapped.begin(), mapped.end(),
                                         [&](const Mapping& m) { return m.build_id == layer; });
      char byte = 0;
      EXPECT_OK(loaded_->Memfile()->ReadAt(of_layer->offset, absl::MakeSpan(&byte, 1), {}));
    }
    network->Node("10.0.0.1:1").Kill();
  }

  const TestBuild base_ = MakeTestBuild({.seed = 1});
  const TestBuild first_ = MakeTestBuild({.seed = 2, .parent = &base_});
  const TestBuild second_ = MakeTestBuild({.seed = 3, .parent = &base_});
  const BuildSources later_{.by_build = {{base_.id, {"10.0.0.2:1"}}}};
  std::shared_ptr<Template> loaded_;
};

TEST_F(LaterSourcesTest, OfTheSameBuildReachALayerThatIsOpen) {
  ASSERT_OK(cache_->GetTemplate(first_.id, later_, {}));
  EXPECT_TRUE(*ReadWhole(*loaded_->Memfile()) == first_.memfile) << "no layer is opened for this";
}

TEST_F(LaterSourcesTest, OfAnotherBuildReachALayerThatIsOpen) {
  const auto another = cache_->GetTemplate(second_.id, later_, {});
  ASSERT_OK(another);
  const auto served = cache_->Resolve({base_.id, FileKind::kMemfile}, false, true);
  ASSERT_OK(served);
  EXPECT_TRUE(*ReadWhole(*served->file) == base_.files.at(FileKind::kMemfile))
      << "before anyone read it through that build";
  ExpectShows(**another, second_);
}

TEST_F(TemplateCacheTest, AnAddressThatIsRefusedLaterChangesNothing) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  char byte = 0;
  ASSERT_OK((*loaded)->Rootfs().ReadAt(0, absl::MakeSpan(&byte, 1), {}));
  RefuseProviders(absl::PermissionDeniedError("169.254.169.254 is link-local"));
  ASSERT_OK(cache_->GetTemplate(build.id, {.default_addresses = {"169.254.169.254:1"}}, {}));
  EXPECT_TRUE(*ReadWhole((*loaded)->Rootfs()) == build.rootfs);
}

TEST_F(TemplateCacheTest, ABuildPausedHereLoadsFromItsOwnFiles) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  const auto loaded = cache_->AddSnapshot(build.id, {});
  ASSERT_OK(loaded);
  ExpectShows(**loaded, build);
  EXPECT_EQ(faults_->calls(StorageCall::kRead) + faults_->calls(StorageCall::kStat), 0u);
  cache_->Evict(build.id);
  EXPECT_EQ(cache_->GetCachedTemplate(build.id), nullptr);
  ExpectShows(**loaded, build);
  EXPECT_OK(cache_->GetTemplate(build.id, {}, {}));
}

TEST_F(TemplateCacheTest, ASnapshotThatWasNotPausedHereIsNotFound) {
  EXPECT_EQ(CodeOf(cache_->AddSnapshot(MakeTestBuild({}).id, {})), absl::StatusCode::kNotFound);
}

TEST_F(TemplateCacheTest, ABuildPausedHereHasItsLayersWhereItsParentHadThem) {
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  Seed(base);
  BuildSources sources;
  sources.default_addresses = {"10.0.0.1:1"};
  ASSERT_OK(cache_->GetTemplate(base.id, sources, {}));
  Pause(child);
  const auto loaded = cache_->AddSnapshot(child.id, {});
  ASSERT_OK(loaded);
  EXPECT_THAT(cache_->SourcesOf(base.id), ElementsAre("10.0.0.1:1"));
  cache_->Evict(base.id);
  EXPECT_THAT(cache_->SourcesOf(base.id), ElementsAre("10.0.0.1:1"));
  ExpectShows(**loaded, child);
  EXPECT_THAT(AddressesUsedFor(base.id), ElementsAre("10.0.0.1:1"));
}

TEST_F(TemplateCacheTest, AnUnknownBuildIsNotFoundAndThatIsNotRemembered) {
  const TestBuild build = MakeTestBuild({});
  EXPECT_EQ(CodeOf(cache_->GetTemplate(build.id, {}, {})), absl::StatusCode::kNotFound);
  Seed(build);
  EXPECT_OK(cache_->GetTemplate(build.id, {}, {}));
}

TEST_F(TemplateCacheTest, ARefusedAddressIsReturnedAsSuch) {
  RefuseProviders(absl::PermissionDeniedError("169.254.169.254 is link-local"));
  const auto loaded = cache_->GetTemplate(MakeTestBuild({}).id, {}, {});
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(faults_->calls(StorageCall::kRead), 0u);
}

TEST_F(TemplateCacheTest, CallersShareALoadAndItsFailure) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  faults_->AddFault({.path = BuildFileId{build.id, FileKind::kRootfsHeader}.ObjectPath(),
                     .times = 1,
                     .stall = true,
                     .error = absl::UnavailableError("planted")});
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      ReadOptions options;
      options.deadline = clock_.Now() + absl::Hours(1);
      EXPECT_EQ(CodeOf(cache_->GetTemplate(build.id, {}, options)), absl::StatusCode::kUnavailable);
    });
  }
  faults_->AwaitStalled(1);
  clock_.AwaitWaiters(5);  // The stalled read too.
  faults_->ClearFaults();
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(faults_->calls(StorageCall::kRead,
                           BuildFileId{build.id, FileKind::kRootfsHeader}.ObjectPath()),
            1u);
  EXPECT_OK(cache_->GetTemplate(build.id, {}, {})) << "not remembered";
}

TEST_F(TemplateCacheTest, ACallerWhoLeavesDoesNotEndTheLoad) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  faults_->AddFault(
      {.path = BuildFileId{build.id, FileKind::kMetadata}.ObjectPath(), .times = 1, .stall = true});
  std::stop_source stop;
  ReadOptions cancellable;
  cancellable.cancellation = stop.get_token();
  cancellable.deadline = clock_.Now() + absl::Hours(1);
  ReadOptions hasty;
  hasty.deadline = clock_.Now() + absl::Seconds(1);
  ReadOptions patient;
  patient.deadline = clock_.Now() + absl::Hours(1);
  std::thread first([&] {
    EXPECT_EQ(CodeOf(cache_->GetTemplate(build.id, {}, cancellable)), absl::StatusCode::kCancelled);
  });
  faults_->AwaitStalled(1);
  std::thread second([&] {
    EXPECT_EQ(CodeOf(cache_->GetTemplate(build.id, {}, hasty)),
              absl::StatusCode::kDeadlineExceeded);
  });
  std::thread third([&] { EXPECT_OK(cache_->GetTemplate(build.id, {}, patient)); });
  clock_.AwaitWaiters(4);
  stop.request_stop();
  clock_.Advance(absl::Seconds(1));
  first.join();
  second.join();
  faults_->ClearFaults();
  third.join();
}

TEST_F(TemplateCacheTest, ALoadHasALimitOfItsOwn) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  faults_->AddFault({.times = 1, .stall = true});
  std::thread caller([&] {
    EXPECT_EQ(CodeOf(cache_->GetTemplate(build.id, {}, {})), absl::StatusCode::kUnavailable);
  });
  faults_->AwaitStalled(1);
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(61));
  caller.join();
  EXPECT_OK(cache_->GetTemplate(build.id, {}, {}));
}

// A build paused here, whose snapfile was found spoilt and comes from the base when the test says
// so: its load has read the metadata by then.
class LoadUnderWayTest : public TemplateCacheTest {
 protected:
  LoadUnderWayTest() {
    Pause(build_);
    MakeDurable(build_);
    const auto file = dir_.folder().OpenAt("builds/" + build_.id.ToString() + "/snapfile", O_RDWR);
    EXPECT_OK(file->WriteAt(0, "spoilt"));
    faults_->AddFault({.times = 1, .stall = true});
    waiter_ = std::thread([this] { waited_ = cache_->GetTemplate(build_.id, {}, {}); });
    faults_->AwaitStalled(1);
  }
  ~LoadUnderWayTest() override {
    if (waiter_.joinable()) EndLoad();
  }
  void EndLoad() {
    faults_->ClearFaults();
    waiter_.join();
  }

  const TestBuild build_ = MakeTestBuild({});
  absl::StatusOr<std::shared_ptr<Template>> waited_;
  std::thread waiter_;
};

TEST_F(LoadUnderWayTest, ReloadIsForItToo) {
  ASSERT_OK(registry_->ReplaceMetadata(build_.id, "{\"new\":1}"));
  cache_->Reload(build_.id);
  const auto after = cache_->GetTemplate(build_.id, {}, {});
  ASSERT_OK(after);
  EXPECT_EQ((*after)->MetadataFile(), "{\"new\":1}");
  EndLoad();
  ASSERT_OK(waited_) << "who waited gets what was begun for it";
  EXPECT_EQ((*waited_)->MetadataFile(), build_.files.at(FileKind::kMetadata));
  EXPECT_EQ(cache_->GetCachedTemplate(build_.id), *after) << "and takes nobody's place";
}

TEST_F(LoadUnderWayTest, EvictIsForItToo) {
  cache_->Evict(build_.id);
  EndLoad();
  ASSERT_OK(waited_);
  ExpectShows(**waited_, build_);
  EXPECT_THAT(cache_->LoadedBuilds(), IsEmpty());
}

TEST_F(TemplateCacheTest, ClosingEndsALoadThatHangs) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  faults_->AddFault({.stall = true});
  ReadOptions hasty;
  hasty.deadline = clock_.Now() + absl::Seconds(1);
  std::thread caller([&] {
    EXPECT_EQ(CodeOf(cache_->GetTemplate(build.id, {}, hasty)),
              absl::StatusCode::kDeadlineExceeded);
  });
  faults_->AwaitStalled(4);
  clock_.AwaitWaiters(5);
  clock_.Advance(absl::Seconds(1));
  caller.join();
  Close();  // Would hang if the load did.
}

// A build in the base that is wrong in one way.
class BadTemplateTest : public TemplateCacheTest {
 protected:
  absl::Status LoadWith(FileKind kind, std::optional<std::string> bytes) {
    TestBuild bad = build_;
    bad.files.erase(kind);
    if (bytes) bad.files[kind] = *bytes;
    Seed(bad);
    return cache_->GetTemplate(build_.id, {}, {}).status();
  }
  const TestBuild build_ = MakeTestBuild({});
};

TEST_F(BadTemplateTest, WithoutSnapfileIsDataLoss) {
  const absl::Status status = LoadWith(FileKind::kSnapfile, std::nullopt);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
}
TEST_F(BadTemplateTest, WithoutMemfileHeaderIsDataLoss) {
  EXPECT_EQ(LoadWith(FileKind::kMemfileHeader, std::nullopt).code(), absl::StatusCode::kDataLoss);
}
TEST_F(BadTemplateTest, WithoutMetadataIsNotFound) {
  EXPECT_EQ(LoadWith(FileKind::kMetadata, std::nullopt).code(), absl::StatusCode::kNotFound);
}
TEST_F(BadTemplateTest, AnotherBuildsHeaderIsDataLoss) {
  EXPECT_EQ(LoadWith(FileKind::kRootfsHeader,
                     MakeTestBuild({.seed = 8}).files.at(FileKind::kRootfsHeader))
                .code(),
            absl::StatusCode::kDataLoss);
}
TEST_F(BadTemplateTest, ACompressedDiffIsUnimplemented) {
  const absl::Status status =
      LoadWith(FileKind::kMemfileHeader, build_.HeaderWithCompression(FileKind::kMemfile));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("compressed (zstd)"));
}
TEST_F(BadTemplateTest, AnotherBuildsMetadataIsDataLoss) {
  EXPECT_EQ(LoadWith(FileKind::kMetadata, MakeTestBuild({.seed = 8}).files.at(FileKind::kMetadata))
                .code(),
            absl::StatusCode::kDataLoss);
}
TEST_F(BadTemplateTest, MetadataThatPromisesMemoryIsDataLoss) {
  TestBuild half = MakeTestBuild({.memfile_bytes = 0});
  half.files[FileKind::kMetadata] = "{\"filesystem_only\":false}";
  Seed(half);
  EXPECT_EQ(CodeOf(cache_->GetTemplate(half.id, {}, {})), absl::StatusCode::kDataLoss);
}
TEST_F(BadTemplateTest, ABlobOverTheLimitIsRefusedInBoundedMemory) {
  options_.max_snapfile_bytes = 100;
  OpenCache();
  EXPECT_EQ(LoadWith(FileKind::kSnapfile, std::string(101, 's')).code(),
            absl::StatusCode::kResourceExhausted);
}
TEST_F(BadTemplateTest, ADiffThatCannotHoldWhatTheHeaderMapsIsDataLoss) {
  const std::string& diff = build_.files.at(FileKind::kRootfs);
  ASSERT_OK(LoadWith(FileKind::kRootfs, "short"));
  const auto loaded = cache_->GetCachedTemplate(build_.id);
  EXPECT_EQ(CodeOf(ReadWhole(loaded->Rootfs())), absl::StatusCode::kDataLoss);
  memory_.Seed(BuildFileId{build_.id, FileKind::kRootfs}.ObjectPath(),
               diff.substr(0, diff.size() - 1));
  EXPECT_EQ(CodeOf(ReadWhole(loaded->Rootfs())), absl::StatusCode::kDataLoss);
  Seed(build_);
  ExpectShows(*loaded, build_);
}

TEST_F(TemplateCacheTest, ATemplateIsReadToTheEndThoughEvicted) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  Device& device = *(*loaded)->Memfile();
  std::string got(build.memfile.size(), '?');
  for (uint64_t at = 0; at < got.size(); at += 100'000) {
    if (at == 300'000) cache_->Evict(build.id);
    const uint64_t length = std::min<uint64_t>(100'000, got.size() - at);
    ASSERT_OK(device.ReadAt(at, absl::MakeSpan(got).subspan(at, length), {}));
  }
  EXPECT_TRUE(got == build.memfile);
  EXPECT_EQ(cache_->GetCachedTemplate(build.id), nullptr);
}

TEST_F(TemplateCacheTest, NoTimeEndsATemplateThatIsHeld) {
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild top = MakeTestBuild({.seed = 2, .parent = &base});
  Seed(base);
  Seed(top);
  const auto loaded = cache_->GetTemplate(top.id, {}, {});
  ASSERT_OK(loaded);
  char byte = 0;
  ASSERT_OK((*loaded)->Rootfs().ReadAt(0, absl::MakeSpan(&byte, 1), {}));
  clock_.Advance(absl::Hours(25));
  EXPECT_EQ(cache_->GetCachedTemplate(top.id), *loaded);
  ExpectShows(**loaded, top);
  for (const BuildId& id : {top.id, base.id}) cache_->Evict(id);
  cache_->BuildStore().MakeRoom(UINT64_MAX);
  clock_.Advance(absl::Hours(25));
  ExpectShows(**loaded, top);
}

TEST_F(TemplateCacheTest, ATemplateMayOutliveTheCache) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  const auto loaded = *cache_->GetTemplate(build.id, {}, {});
  EXPECT_OK(ReadWhole(loaded->Rootfs()));
  Close();
  EXPECT_TRUE(*ReadWhole(loaded->Rootfs()) == build.rootfs) << "opened before";
  EXPECT_EQ(CodeOf(ReadWhole(*loaded->Memfile())), absl::StatusCode::kUnavailable);
}

// A cache of two templates, and three builds.
class FewTemplatesTest : public TemplateCacheTest {
 protected:
  FewTemplatesTest() {
    options_.max_templates = 2;
    OpenCache();
    for (uint32_t seed = 1; seed <= 3; ++seed) {
      builds_.push_back(MakeTestBuild({.memfile_bytes = 0, .rootfs_bytes = 4096, .seed = seed}));
      Seed(builds_.back());
    }
  }
  std::shared_ptr<Template> Use(size_t i) {
    auto loaded = cache_->GetTemplate(builds_[i].id, {}, {});
    EXPECT_OK(loaded);
    return *std::move(loaded);
  }
  // The load that made it holds it a moment longer than the call that waited for it.
  void UseAndLeave(size_t i) {
    Use(i);
    while (cache_->GetCachedTemplate(builds_[i].id).use_count() > 2) std::this_thread::yield();
  }
  bool Here(size_t i) { return cache_->GetCachedTemplate(builds_[i].id) != nullptr; }

  std::vector<TestBuild> builds_;
};

TEST_F(FewTemplatesTest, TheLongestUnusedGoesFirst) {
  UseAndLeave(0);
  UseAndLeave(1);
  UseAndLeave(0);
  UseAndLeave(2);
  EXPECT_TRUE(Here(0));
  EXPECT_FALSE(Here(1));
}

TEST_F(FewTemplatesTest, ToLookIsNotToUse) {
  UseAndLeave(0);
  UseAndLeave(1);
  EXPECT_TRUE(Here(0));
  UseAndLeave(2);
  EXPECT_FALSE(Here(0));
  EXPECT_TRUE(Here(1));
}

TEST_F(FewTemplatesTest, WhatIsHeldStays) {
  const auto first = Use(0);
  UseAndLeave(1);
  const auto third = Use(2);
  EXPECT_TRUE(Here(0)) << "though the longest unused";
  EXPECT_FALSE(Here(1));
  EXPECT_EQ(Use(0), first) << "no second copy";
  const auto second = Use(1);
  EXPECT_EQ(cache_->LoadedBuilds().size(), 3u);
}

TEST_F(TemplateCacheTest, ACorruptCopyIsReadFromTheBaseOnceItIsThere) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  for (const char* name : {"/rootfs.ext4", "/rootfs.ext4.header"}) {
    const auto file = dir_.folder().OpenAt("builds/" + build.id.ToString() + name, O_RDWR);
    ASSERT_OK(file->WriteAt(70, "spoilt"));
  }
  EXPECT_EQ(CodeOf(cache_->AddSnapshot(build.id, {})), absl::StatusCode::kDataLoss);
  EXPECT_EQ(registry_->Find(build.id)->status.state, BuildState::kFailed);

  ASSERT_OK(registry_->Retry(build.id));
  MakeDurable(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  ExpectShows(**loaded, build);
  ExpectShows(**loaded, build);
}

TEST_F(TemplateCacheTest, ABuildPausedHereLoadsThoughTheExecutorIsBusy) {
  HeldExecutor held;
  options_.executor = &held;
  OpenCache();
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  const auto loaded = cache_->AddSnapshot(build.id, {});
  ASSERT_OK(loaded);
  ExpectShows(**loaded, build);
  EXPECT_FALSE(held.RunNext());
}

TEST_F(TemplateCacheTest, ADiskThatTakesNoFilesIsReadAround) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  std::filesystem::remove(dir_.PathOf("chunks"));  // No file can be made in it any more.
  ExpectShows(**loaded, build);
  EXPECT_EQ(cache_->BuildStore().AllocatedBytes(), 0u);
}

TEST_F(TemplateCacheTest, OpenNeedsItsParts) {
  EXPECT_EQ(CodeOf(TemplateCache::Open({})), absl::StatusCode::kInvalidArgument);
}

TEST_F(TemplateCacheTest, LeftOverCacheFilesGoAndOthersStay) {
  Close();
  dir_.Write("chunks/old.chunks", "x");
  dir_.Write("chunks/precious", "x");
  Open();
  EXPECT_FALSE(std::filesystem::exists(dir_.PathOf("chunks/old.chunks")));
  EXPECT_TRUE(std::filesystem::exists(dir_.PathOf("chunks/precious")));
}

// Resolve.

TEST_F(TemplateCacheTest, ABuildIsServedFromItsPauseUntilItIsDurable) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  const auto expect_served = [&](bool even_if_durable, BuildState state) {
    for (const auto& [kind, bytes] : build.files) {
      const auto served = cache_->Resolve({build.id, kind}, even_if_durable, true);
      ASSERT_OK(served);
      EXPECT_EQ(served->head.availability, Availability::kAvailable);
      EXPECT_EQ(served->head.status.state, state);
      EXPECT_EQ(served->head.status.incarnation, registry_->incarnation());
      EXPECT_EQ(served->head.total_size, bytes.size());
      EXPECT_EQ(served->head.file_crc32c, served->file->crc32c());
      EXPECT_EQ(served->head.version, kind == FileKind::kMetadata ? 1u : 0u);
      EXPECT_EQ(served->head.in_base, state == BuildState::kDurable);
      EXPECT_TRUE(*ReadWhole(*served->file) == bytes) << "the exact bytes";
      const auto head = cache_->Resolve({build.id, kind}, even_if_durable, false);
      ASSERT_OK(head);
      EXPECT_EQ(head->file, nullptr);
      EXPECT_EQ(head->head.total_size, bytes.size());
    }
  };
  expect_served(false, BuildState::kLocal);
  ASSERT_OK(registry_->MarkUploading(build.id));
  expect_served(false, BuildState::kUploading);
  ASSERT_OK(registry_->MarkFailed(build.id, "x"));
  expect_served(false, BuildState::kFailed);
  ASSERT_OK(registry_->Retry(build.id));
  MakeDurable(build);
  for (const auto& [kind, bytes] : build.files) {
    const auto served = cache_->Resolve({build.id, kind}, false, true);
    ASSERT_OK(served);
    EXPECT_EQ(served->head.availability, Availability::kUseStorage);
    EXPECT_EQ(served->head.total_size, bytes.size());
    EXPECT_EQ(served->file, nullptr);
  }
  expect_served(true, BuildState::kDurable);
}

TEST_F(TemplateCacheTest, AFileInTheBaseIsSaidToBeBeforeTheBuildIsDurable) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  ASSERT_OK(registry_->MarkUploading(build.id));
  ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMemfile}));
  EXPECT_TRUE(cache_->Resolve({build.id, FileKind::kMemfile}, false, false)->head.in_base);
  EXPECT_FALSE(cache_->Resolve({build.id, FileKind::kRootfs}, false, false)->head.in_base);
}

TEST_F(TemplateCacheTest, NewMetadataOfADurableBuildIsServedUntilTheBaseHasIt) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  MakeDurable(build);
  ASSERT_OK(registry_->ReplaceMetadata(build.id, "{\"new\":1}"));
  const BuildFileId metadata{build.id, FileKind::kMetadata};
  const auto served = cache_->Resolve(metadata, false, true);
  ASSERT_OK(served);
  EXPECT_EQ(served->head.availability, Availability::kAvailable);
  EXPECT_EQ(served->head.version, 2u);
  EXPECT_FALSE(served->head.in_base);
  EXPECT_EQ(*ReadWhole(*served->file), "{\"new\":1}");
  EXPECT_EQ(cache_->Resolve({build.id, FileKind::kMemfile}, false, true)->head.availability,
            Availability::kUseStorage);
  ASSERT_OK(registry_->ConfirmInBase(metadata, 2));
  EXPECT_EQ(cache_->Resolve(metadata, false, true)->head.availability, Availability::kUseStorage);
}

TEST_F(TemplateCacheTest, WhatAFilesystemOnlyBuildLacksIsAbsent) {
  const TestBuild build = MakeTestBuild({.memfile_bytes = 0});
  Pause(build);
  for (const FileKind kind : {FileKind::kMemfile, FileKind::kMemfileHeader, FileKind::kSnapfile}) {
    EXPECT_EQ(cache_->Resolve({build.id, kind}, false, true)->head.availability,
              Availability::kAbsent);
  }
}

TEST_F(TemplateCacheTest, AnUnknownBuildIsNotAvailable) {
  for (const FileKind kind : kAllFileKinds) {
    const auto served = cache_->Resolve({MakeTestBuild({}).id, kind}, true, true);
    ASSERT_OK(served);
    EXPECT_EQ(served->head.availability, Availability::kNotAvailable);
    EXPECT_EQ(served->head.status.state, BuildState::kUnknown);
    EXPECT_EQ(served->head.status.incarnation, registry_->incarnation());
  }
}

TEST_F(TemplateCacheTest, ALostFileIsDataLossAndFails) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  ASSERT_OK(dir_.folder().Remove("builds/" + build.id.ToString() + "/snapfile"));
  EXPECT_EQ(CodeOf(cache_->Resolve({build.id, FileKind::kSnapfile}, false, true)),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(registry_->Find(build.id)->status.state, BuildState::kFailed);
}

TEST_F(TemplateCacheTest, AResolvedFileIsReadToTheEndThoughEvictedAndRemoved) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  const auto served = cache_->Resolve({build.id, FileKind::kMemfile}, false, true);
  ASSERT_OK(served);
  cache_->Evict(build.id);
  ASSERT_OK(registry_->Remove(build.id));
  EXPECT_TRUE(*ReadWhole(*served->file) == build.files.at(FileKind::kMemfile));
  EXPECT_EQ(cache_->Resolve({build.id, FileKind::kMemfile}, false, true)->head.availability,
            Availability::kNotAvailable);
}

TEST_F(TemplateCacheTest, BlobsAndLayersOfALoadedTemplateAreServed) {
  const TestBuild base = MakeTestBuild({.rootfs_bytes = kMiB, .seed = 1});
  const TestBuild top = MakeTestBuild({.rootfs_bytes = kMiB, .seed = 2, .parent = &base});
  Seed(base);
  Seed(top);
  const auto loaded = cache_->GetTemplate(top.id, {}, {});
  ASSERT_OK(loaded);
  for (const auto& [kind, bytes] : top.files) {
    if (IsSeekable(kind)) continue;
    const auto served = cache_->Resolve({top.id, kind}, false, true);
    ASSERT_OK(served);
    EXPECT_EQ(served->head.availability, Availability::kAvailable);
    EXPECT_EQ(served->head.status.state, BuildState::kUnknown);
    EXPECT_EQ(served->head.total_size, bytes.size());
    EXPECT_FALSE(served->head.in_base);
    EXPECT_EQ(*ReadWhole(*served->file), bytes);
    char byte = 0;
    EXPECT_EQ(CodeOf(served->file->ReadAt(bytes.size() + 1, absl::MakeSpan(&byte, 1), {})),
              absl::StatusCode::kOutOfRange);
    EXPECT_EQ(served->file->PresentBytes(1, 3), 3u);
    EXPECT_EQ(served->file->PresentBytes(bytes.size(), 3), 0u);
    EXPECT_EQ(served->file->AllocatedBytes(), 0u);
  }
  EXPECT_EQ(cache_->Resolve({base.id, FileKind::kMetadata}, false, true)->head.availability,
            Availability::kNotAvailable)
      << "a layer's blobs were never read";

  ASSERT_OK(ReadWhole((*loaded)->Rootfs()));
  const auto layer = cache_->Resolve({base.id, FileKind::kRootfs}, false, true);
  ASSERT_OK(layer);
  EXPECT_EQ(layer->head.availability, Availability::kAvailable);
  EXPECT_EQ(layer->head.total_size, base.files.at(FileKind::kRootfs).size());
  EXPECT_EQ(layer->head.file_crc32c, std::nullopt);
  EXPECT_TRUE(*ReadWhole(*layer->file) == base.files.at(FileKind::kRootfs));
}

TEST_F(TemplateCacheTest, FilesystemOnlyTemplatesSayWhatIsAbsent) {
  const TestBuild build = MakeTestBuild({.memfile_bytes = 0});
  Seed(build);
  ASSERT_OK(cache_->GetTemplate(build.id, {}, {}));
  EXPECT_EQ(cache_->Resolve({build.id, FileKind::kSnapfile}, false, true)->head.availability,
            Availability::kAbsent);
}

TEST_F(TemplateCacheTest, ALayerThatWasNeverReadHereIsOpenedForAPeer) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  ASSERT_OK(cache_->GetTemplate(build.id, {}, {}));
  const BuildFileId layer{build.id, FileKind::kMemfile};
  faults_->AddFault({.call = StorageCall::kStat, .times = 1, .stall = true});
  const auto first = cache_->Resolve(layer, false, true);
  ASSERT_OK(first);
  EXPECT_EQ(first->head.availability, Availability::kNotYet);
  EXPECT_GT(first->head.retry_after, absl::ZeroDuration());
  faults_->AwaitStalled(1);
  EXPECT_EQ(cache_->Resolve(layer, false, true)->head.availability, Availability::kNotYet);
  faults_->ClearFaults();
  while (cache_->BuildStore().Lookup(layer) == nullptr) std::this_thread::yield();
  const auto served = cache_->Resolve(layer, false, true);
  EXPECT_EQ(served->head.availability, Availability::kAvailable);
  EXPECT_TRUE(*ReadWhole(*served->file) == build.files.at(FileKind::kMemfile));
}

TEST_F(TemplateCacheTest, ALayerThatCannotBeOpenedIsNotPromisedForAWhile) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  ASSERT_OK(cache_->GetTemplate(build.id, {}, {}));
  const BuildFileId layer{build.id, FileKind::kMemfile};
  memory_.Remove(layer.ObjectPath());
  while (cache_->Resolve(layer, false, true)->head.availability == Availability::kNotYet) {
    std::this_thread::yield();
  }
  EXPECT_EQ(cache_->Resolve(layer, false, true)->head.availability, Availability::kNotAvailable);
  Seed(build);
  clock_.Advance(absl::Seconds(5));
  EXPECT_EQ(cache_->Resolve(layer, false, true)->head.availability, Availability::kNotYet);
}

// The disk budget.

TEST_F(TemplateCacheTest, WhatIsNotDurableIsNeverEvictedAndWhatIsGoesAsAWhole) {
  const TestBuild local = MakeTestBuild({.seed = 1});
  const TestBuild durable = MakeTestBuild({.seed = 2});
  Pause(local);
  Pause(durable);
  options_.cache_capacity_bytes = 10'000;
  OpenCache();
  EXPECT_TRUE(cache_->BuildStore().Full());
  MakeDurable(durable);
  cache_->UpdatePins(durable.id);
  cache_->UpdatePins(local.id);  // Not durable: nothing happens.
  while (registry_->Find(durable.id) != nullptr) std::this_thread::yield();
  EXPECT_NE(registry_->Find(local.id), nullptr);
  EXPECT_FALSE(std::filesystem::exists(dir_.PathOf("builds/" + durable.id.ToString())));
  const auto loaded = cache_->GetTemplate(durable.id, {}, {});
  ASSERT_OK(loaded);
  ExpectShows(**loaded, durable);
  ExpectShows(**cache_->GetTemplate(local.id, {}, {}), local);
}

TEST_F(TemplateCacheTest, ADurableBuildIsKeptWhileOneOfItsFilesIsRead) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  options_.cache_capacity_bytes = 10'000;
  OpenCache();
  MakeDurable(build);
  const uint64_t held = cache_->BuildStore().AllocatedBytes();
  auto reading = cache_->Resolve({build.id, FileKind::kMemfile}, true, true)->file;
  cache_->UpdatePins(build.id);
  cache_->Trim();
  EXPECT_EQ(cache_->BuildStore().AllocatedBytes(), held) << "also what nobody reads";
  EXPECT_NE(registry_->Find(build.id), nullptr);
  reading = nullptr;
  cache_->Trim();
  while (registry_->Find(build.id) != nullptr) std::this_thread::yield();
}

TEST_F(TemplateCacheTest, ABuildThatIsReadAgainBeforeItHasLeftTheDiskStays) {
  HeldExecutor held_tasks;
  options_.executor = &held_tasks;
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  options_.cache_capacity_bytes = 10'000;
  OpenCache();
  MakeDurable(build);
  const uint64_t held = cache_->BuildStore().AllocatedBytes();
  cache_->UpdatePins(build.id);
  EXPECT_EQ(cache_->BuildStore().AllocatedBytes(), 0u) << "on its way";
  const auto reading = cache_->Resolve({build.id, FileKind::kRootfs}, true, true)->file;
  held_tasks.RunAll();
  EXPECT_NE(registry_->Find(build.id), nullptr);
  EXPECT_EQ(cache_->BuildStore().AllocatedBytes(), held);
  Close();
}

TEST_F(TemplateCacheTest, ADurableBuildWithNewMetadataIsKept) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  options_.cache_capacity_bytes = 10'000;
  OpenCache();
  MakeDurable(build);
  ASSERT_OK(registry_->ReplaceMetadata(build.id, "{}"));
  cache_->UpdatePins(build.id);
  cache_->BuildStore().Trim();
  EXPECT_NE(registry_->Find(build.id), nullptr);
  EXPECT_TRUE(cache_->BuildStore().Full());
}

TEST_F(TemplateCacheTest, ABuildCountsWithAllThatItHasOnTheDisk) {
  std::vector<TestBuild> builds = {MakeTestBuild({.seed = 1}),
                                   MakeTestBuild({.memfile_bytes = 0, .seed = 2})};
  builds[0].files[FileKind::kSnapfile] = std::string(300 * kKiB, 's');
  uint64_t on_disk = 0;
  for (const TestBuild& build : builds) {
    Pause(build);
    const auto folder =
        dir_.folder().OpenAt("builds/" + build.id.ToString(), O_RDONLY | O_DIRECTORY);
    const std::vector<std::string> names = *folder->List();
    for (const std::string& name : names) {
      on_disk += *folder->OpenAt(name, O_RDONLY)->AllocatedBytes();
    }
  }
  OpenCache();
  EXPECT_EQ(cache_->BuildStore().AllocatedBytes(), on_disk);
  for (const TestBuild& build : builds) {
    MakeDurable(build);
    cache_->UpdatePins(build.id);
  }
  cache_->BuildStore().MakeRoom(UINT64_MAX);
  EXPECT_EQ(cache_->BuildStore().AllocatedBytes(), 0u);
}

TEST_F(TemplateCacheTest, NewMetadataOfABuildThatWasLetGoPinsItAgain) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  options_.cache_capacity_bytes = 10'000;
  OpenCache();
  MakeDurable(build);
  std::shared_ptr<BuildFile> reading[2];
  for (const FileKind diff : {FileKind::kMemfile, FileKind::kRootfs}) {
    reading[diff == FileKind::kRootfs] = cache_->Resolve({build.id, diff}, true, true)->file;
  }
  cache_->UpdatePins(build.id);
  ASSERT_OK(registry_->ReplaceMetadata(build.id, "{}"));
  cache_->UpdatePins(build.id);
  for (auto& file : reading) file = nullptr;
  cache_->Trim();
  EXPECT_TRUE(cache_->BuildStore().Full());
  EXPECT_NE(registry_->Find(build.id), nullptr);
  ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 2));
  cache_->UpdatePins(build.id);
  while (registry_->Find(build.id) != nullptr) std::this_thread::yield();
}

TEST_F(TemplateCacheTest, ABuildThatWasDiscardedIsNotAvailableForGood) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  ASSERT_OK(registry_->Remove(build.id));
  cache_->Evict(build.id);
  const auto served = cache_->Resolve({build.id, FileKind::kMetadata}, false, false);
  ASSERT_OK(served);
  EXPECT_EQ(served->head.availability, Availability::kNotAvailable);
  EXPECT_EQ(served->head.status.state, BuildState::kFailed);
  const auto never =
      cache_->Resolve({MakeTestBuild({.seed = 9}).id, FileKind::kMetadata}, false, false);
  EXPECT_EQ(never->head.status.state, BuildState::kUnknown);
}

TEST_F(TemplateCacheTest, SourcesOfAncestorsAreKnownAfterARestart) {
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  Seed(base);
  ASSERT_OK(cache_->GetTemplate(base.id, {.default_addresses = {"10.0.0.1:7070"}}, {}));
  ASSERT_OK(registry_->Add(child.id, child.WriteTo(dir_, "child"), false,
                           [&](const BuildId& id) { return cache_->SourcesOf(id); }));
  Close();
  Open();
  EXPECT_EQ(cache_->SourcesOf(base.id), std::vector<std::string>{"10.0.0.1:7070"});
  {
    const MutexLock lock(mutex_);
    opened_.clear();
  }
  const auto loaded = cache_->GetTemplate(child.id, {}, {});
  ASSERT_OK(loaded);
  ExpectShows(**loaded, child);
  EXPECT_EQ(AddressesUsedFor(base.id), std::vector<std::string>{"10.0.0.1:7070"});
}

// Whoever resumes the child elsewhere is sent here for its ancestors, too.
TEST_F(TemplateCacheTest, AnAncestorIsRelayedAfterARestartThoughNoTemplateIsLoaded) {
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  const auto network = ConnectPeers();
  for (const auto& [kind, bytes] : base.files) {
    network->Node("10.0.0.1:7070").PutFile({base.id, kind}, bytes);
  }
  ASSERT_OK(cache_->GetTemplate(base.id, {.default_addresses = {"10.0.0.1:7070"}}, {}));
  ASSERT_OK(registry_->Add(child.id, child.WriteTo(dir_, "child"), false,
                           [&](const BuildId& id) { return cache_->SourcesOf(id); }));
  Close();
  Open();
  ASSERT_THAT(cache_->LoadedBuilds(), IsEmpty());
  const BuildFileId layer{base.id, FileKind::kMemfile};
  ASSERT_EQ(cache_->Resolve(layer, false, true)->head.availability, Availability::kNotYet);
  while (cache_->BuildStore().Lookup(layer) == nullptr) std::this_thread::yield();
  const auto served = cache_->Resolve(layer, false, true);
  ASSERT_OK(served);
  ASSERT_EQ(served->head.availability, Availability::kAvailable);
  EXPECT_TRUE(*ReadWhole(*served->file) == base.files.at(FileKind::kMemfile));
}

TEST_F(TemplateCacheTest, NewWorkTakesThePlaceOfWhatNobodyUses) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  options_.cache_capacity_bytes = 2 * kMiB;
  OpenCache();
  auto guest = *cache_->GetTemplate(build.id, {}, {});
  ExpectShows(*guest, build);
  EXPECT_FALSE(cache_->HasRoom()) << "it is not durable";
  MakeDurable(build);
  cache_->UpdatePins(build.id);
  EXPECT_FALSE(cache_->HasRoom()) << "someone uses it";
  guest = nullptr;
  ASSERT_TRUE(cache_->BuildStore().Full()) << "its template is still here";
  EXPECT_TRUE(cache_->HasRoom());
  while (registry_->Find(build.id) != nullptr) std::this_thread::yield();
}

TEST_F(TemplateCacheTest, TheEndOfAUseMakesRoom) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  options_.cache_capacity_bytes = 2 * kMiB;
  OpenCache();
  auto guest = *cache_->GetTemplate(build.id, {}, {});
  ExpectShows(*guest, build);
  MakeDurable(build);
  cache_->UpdatePins(build.id);
  guest = nullptr;
  cache_->Trim();
  while (registry_->Find(build.id) != nullptr) std::this_thread::yield();
}

TEST_F(TemplateCacheTest, ReadsGoOnWhenTheBudgetIsUsedUp) {
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  options_.cache_capacity_bytes = 200 * kKiB;
  OpenCache();
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  for (int i = 0; i < 3; ++i) ExpectShows(**loaded, build);
  EXPECT_GT(
      metrics_.CounterValue("peerchunk_passed_through_reads_total", {{"reason", "disk_full"}}), 0u);
  EXPECT_LE(cache_->BuildStore().AllocatedBytes(), 200 * kKiB + 4 * 64 * kKiB)
      << "the budget, and what four fetches may add at once";
}

TEST_F(TemplateCacheTest, TemplatesThatNobodyUsesMakeRoom) {
  const TestBuild idle = MakeTestBuild({.seed = 1});
  const TestBuild used = MakeTestBuild({.seed = 2});
  Seed(idle);
  Seed(used);
  options_.cache_capacity_bytes = 2 * kMiB;
  OpenCache();
  ASSERT_OK(ReadWhole((*cache_->GetTemplate(idle.id, {}, {}))->Rootfs()));
  const auto loaded = *cache_->GetTemplate(used.id, {}, {});
  while (cache_->GetCachedTemplate(idle.id) != nullptr) {
    ASSERT_OK(ReadWhole(*loaded->Memfile()));
    clock_.Advance(absl::Seconds(2));
  }
  EXPECT_EQ(cache_->GetCachedTemplate(used.id), loaded);
}

}  // namespace
}  // namespace peerchunk::test
