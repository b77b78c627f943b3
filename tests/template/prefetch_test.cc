// Working sets through a TemplateCache: recorded of what peers read, kept of what is read here, and
// fetched for whoever resumes.
#include <filesystem>
#include <set>
#include <string>

#include <absl/strings/str_format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/header/header.h"
#include "template/access_trace.h"
#include "template/trace_folder.h"
#include "template/working_set.h"
#include "tests/build/held_executor.h"
#include "tests/template/template_cache_fixture.h"

namespace peerchunk::test {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;

constexpr uint64_t kChunk = 64 * kKiB;  // Of the fixture's caches.

class PrefetchTest : public TemplateCacheTest {
 protected:
  PrefetchTest() {
    options_.working_set_executor = &prefetches_;
    options_.trace_folder = dir_.PathOf("traces");
    options_.record_served = true;
    options_.on_metadata_replaced = [this](const BuildId& id) { replaced_.push_back(id); };
    OpenCache();
  }
  ~PrefetchTest() override { Close(); }

  static TestBuild WithPrefetch(TestBuild build, const std::vector<uint64_t>& blocks) {
    std::string& metadata = build.files[FileKind::kMetadata];
    metadata = *WithWorkingSet(metadata, {.block_bytes = kPageBytes, .blocks = blocks});
    return build;
  }
  // Device blocks that lie in the build's own diff, each in a chunk of its own, in order.
  static std::vector<uint64_t> OwnBlocks(const TestBuild& build, size_t count) {
    std::vector<uint64_t> blocks;
    const Header header = *Header::Decode(build.files.at(FileKind::kMemfileHeader));
    for (const Mapping& mapping : header.mappings()) {
      if (mapping.build_id != build.id) continue;
      for (uint64_t at = 0; at < mapping.length && blocks.size() < count; at += kPageBytes) {
        const uint64_t chunk = (mapping.storage_offset + at) / kChunk;
        if (chunk == blocks.size()) blocks.push_back((mapping.offset + at) / kPageBytes);
      }
    }
    EXPECT_EQ(blocks.size(), count);
    return blocks;
  }
  uint64_t Present(const TestBuild& build) {
    const auto file = cache_->BuildStore().Lookup({build.id, FileKind::kMemfile});
    uint64_t present = 0;
    for (uint64_t at = 0; file != nullptr && at < file->size(); at += kPageBytes) {
      if (file->PresentBytes(at, 1) > 0) present += std::min(kPageBytes, file->size() - at);
    }
    return present;
  }
  uint64_t Fetched(const char* outcome) {
    return metrics_.CounterValue("peerchunk_working_set_bytes_total", {{"outcome", outcome}});
  }
  // As a peer does that resumes the build.
  void Serve(const BuildFileId& id, uint64_t offset, uint64_t length,
             Priority priority = Priority::kDemand) {
    const auto served = cache_->Resolve(id, true, true);
    ASSERT_OK(served);
    ASSERT_NE(served->file, nullptr);
    std::string out(length, '?');
    ASSERT_OK(served->file->ReadRuns(offset, absl::MakeSpan(out),
                                     {.priority = priority, .relayed = true}));
  }
  void ServeHeader(const TestBuild& build) { Serve({build.id, FileKind::kMemfileHeader}, 0, 8); }
  std::optional<WorkingSet> Recorded(const TestBuild& build) {
    const auto file = registry_->OpenFile({build.id, FileKind::kMetadata});
    EXPECT_OK(file);
    const auto bytes = ReadWhole(**file);
    EXPECT_OK(bytes);
    const auto set = DecodeWorkingSet(*bytes, build.memfile.size());
    EXPECT_OK(set);
    return *set;
  }
  std::string ReadBlock(Template& from, uint64_t block) {
    std::string page(kPageBytes, '?');
    EXPECT_OK(from.Memfile()->ReadAt(block * kPageBytes, absl::MakeSpan(page), {}));
    return page;
  }

  HeldExecutor prefetches_;
  std::vector<BuildId> replaced_;
};

TEST_F(PrefetchTest, AResumeFetchesTheWorkingSetAndNothingElse) {
  const TestBuild plain = MakeTestBuild({});
  const std::vector<uint64_t> blocks = OwnBlocks(plain, 6);
  const TestBuild build = WithPrefetch(plain, {blocks[4], blocks[1]});
  Seed(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  EXPECT_EQ(Present(build), 0u) << "behind what readers ask for";
  prefetches_.RunAll();
  EXPECT_EQ(Present(build), 2 * kChunk) << "two chunks; what is cold stays cold";
  EXPECT_EQ(Fetched("ok"), 2 * kPageBytes);
  const uint64_t reads = faults_->calls(StorageCall::kRead);
  EXPECT_TRUE(ReadBlock(**loaded, blocks[4]) ==
              build.memfile.substr(blocks[4] * kPageBytes, kPageBytes));
  EXPECT_EQ(faults_->calls(StorageCall::kRead), reads) << "it is here";
}

TEST_F(PrefetchTest, NothingIsFetchedForABuildThatNobodyAskedFor) {
  const TestBuild base = MakeTestBuild({.seed = 1});
  Seed(base);
  TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  std::vector<uint64_t> all;
  for (uint64_t i = 0; i < child.memfile.size() / kPageBytes; ++i) all.push_back(i);
  child = WithPrefetch(child, all);
  Pause(child);
  ASSERT_OK(cache_->AddSnapshot(child.id, {}));
  ServeHeader(child);
  EXPECT_FALSE(prefetches_.RunNext());
  EXPECT_EQ(cache_->BuildStore().Lookup({base.id, FileKind::kMemfile}), nullptr);
  // A resume here does.
  ASSERT_OK(cache_->GetTemplate(child.id, {}, {}));
  prefetches_.RunAll();
  EXPECT_GT(Present(base), 0u);
  ASSERT_OK(cache_->GetTemplate(child.id, {}, {}));
  EXPECT_FALSE(prefetches_.RunNext()) << "once";
}

TEST_F(PrefetchTest, AWorkingSetThatMakesNoSenseIsIgnored) {
  TestBuild build = MakeTestBuild({});
  build.files[FileKind::kMetadata] =
      R"({"prefetch":{"memory":{"indices":[99999999],"access_types":["r"],"block_size":4096}}})";
  Seed(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  EXPECT_FALSE(prefetches_.RunNext());
  ExpectShows(**loaded, build);
}

TEST_F(PrefetchTest, EvictingTheBuildEndsTheFetch) {
  const TestBuild plain = MakeTestBuild({});
  const TestBuild build = WithPrefetch(plain, OwnBlocks(plain, 8));
  Seed(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  ASSERT_TRUE(prefetches_.RunNext());
  const uint64_t reads = faults_->calls(StorageCall::kRead);
  cache_->Evict(build.id);
  prefetches_.RunAll();
  EXPECT_EQ(faults_->calls(StorageCall::kRead), reads);
}

TEST_F(PrefetchTest, ClosingTheCacheEndsTheFetch) {
  const TestBuild plain = MakeTestBuild({});
  const TestBuild build = WithPrefetch(plain, OwnBlocks(plain, 8));
  Seed(build);
  ASSERT_OK(cache_->GetTemplate(build.id, {}, {}));
  ASSERT_TRUE(prefetches_.RunNext());
  const uint64_t reads = faults_->calls(StorageCall::kRead);
  Close();
  prefetches_.RunAll();
  EXPECT_EQ(faults_->calls(StorageCall::kRead), reads);
}

TEST_F(PrefetchTest, DiskPressureEndsTheFetchAndEvictsNothing) {
  const TestBuild other = MakeTestBuild({.seed = 5});
  Seed(other);
  options_.cache_capacity_bytes = other.files.at(FileKind::kMemfile).size() +
                                  other.files.at(FileKind::kRootfs).size() + 2 * kChunk;
  OpenCache();
  ASSERT_OK(ReadWhole(*(*cache_->GetTemplate(other.id, {}, {}))->Memfile()));
  ASSERT_OK(ReadWhole((*cache_->GetTemplate(other.id, {}, {}))->Rootfs()));
  const uint64_t held = Present(other);

  const TestBuild plain = MakeTestBuild({.seed = 6});
  const TestBuild build = WithPrefetch(plain, OwnBlocks(plain, 8));
  Seed(build);
  ASSERT_OK(cache_->GetTemplate(build.id, {}, {}));
  prefetches_.RunAll();
  EXPECT_LE(Present(build), 3 * kChunk);
  EXPECT_GE(Fetched("refused"), 1u);
  EXPECT_EQ(Present(other), held);
}

TEST_F(PrefetchTest, AFetchThatKeepsFailingIsGivenUpAndReadsGoOn) {
  const TestBuild plain = MakeTestBuild({});
  const TestBuild build = WithPrefetch(plain, OwnBlocks(plain, 8));
  Seed(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  faults_->AddFault({.path = BuildFileId{build.id, FileKind::kMemfile}.ObjectPath(),
                     .error = absl::UnavailableError("planted")});
  prefetches_.RunAll();
  EXPECT_EQ(Present(build), 0u);
  EXPECT_LE(Fetched("error"), 4 * kPageBytes);
  faults_->ClearFaults();
  ExpectShows(**loaded, build);
}

TEST_F(PrefetchTest, WhatPeersReadFirstGoesIntoTheMetadata) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  const BuildFileId memfile{build.id, FileKind::kMemfile};
  const std::vector<uint64_t> blocks = OwnBlocks(build, 5);
  const Header header = *Header::Decode(build.files.at(FileKind::kMemfileHeader));
  const auto storage = [&](uint64_t block) {
    return header.Route(block * kPageBytes)->storage_offset;
  };
  Serve(memfile, storage(blocks[0]), kPageBytes);  // Before anyone resumes it: not noted.
  ServeHeader(build);
  Serve(memfile, storage(blocks[3]), kPageBytes);
  Serve(memfile, storage(blocks[1]), 10);
  Serve(memfile, storage(blocks[2]), kPageBytes, Priority::kPrefetch);  // Nobody's fault.
  Serve(memfile, storage(blocks[3]), 1);
  cache_->SaveTraces();
  EXPECT_EQ(Recorded(build), std::nullopt) << "reads go on";
  EXPECT_EQ(registry_->Find(build.id)->metadata_version, 1u);

  clock_.Advance(kTraceSettledAfter);
  cache_->SaveTraces();
  ASSERT_TRUE(Recorded(build).has_value());
  EXPECT_EQ(Recorded(build)->block_bytes, header.block_size());
  EXPECT_THAT(Recorded(build)->blocks, ElementsAre(blocks[3], blocks[1]));
  EXPECT_EQ(registry_->Find(build.id)->metadata_version, 2u);
  EXPECT_THAT(replaced_, ElementsAre(build.id));
  cache_->SaveTraces();
  EXPECT_EQ(registry_->Find(build.id)->metadata_version, 2u) << "nothing new";

  Serve(memfile, storage(blocks[4]), kPageBytes);
  clock_.Advance(kTraceSettledAfter);
  cache_->SaveTraces();
  EXPECT_THAT(Recorded(build)->blocks, ElementsAre(blocks[3], blocks[1], blocks[4]));

  clock_.Advance(kTracedAfterFirstRead);
  Serve(memfile, storage(blocks[0]), kPageBytes);
  cache_->SaveTraces();
  ServeHeader(build);
  Serve(memfile, storage(blocks[0]), kPageBytes);
  clock_.Advance(absl::Hours(1));
  cache_->SaveTraces();
  EXPECT_EQ(registry_->Find(build.id)->metadata_version, 3u) << "the guest's work is no resume";
}

TEST_F(PrefetchTest, ReadsOfLayersBelowBelongToTheBuildThatIsResumed) {
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  Pause(base);
  Pause(child);
  const Header header = *Header::Decode(child.files.at(FileKind::kMemfileHeader));
  std::optional<Mapping> below;
  for (const Mapping& mapping : header.mappings()) {
    if (mapping.build_id == base.id) below = mapping;
  }
  ASSERT_TRUE(below.has_value());
  ServeHeader(child);
  Serve({base.id, FileKind::kMemfile}, below->storage_offset, kPageBytes);
  clock_.Advance(kTraceSettledAfter);
  cache_->SaveTraces();
  ASSERT_TRUE(Recorded(child).has_value());
  EXPECT_THAT(Recorded(child)->blocks, ElementsAre(below->offset / kPageBytes));
  EXPECT_EQ(Recorded(base), std::nullopt) << "nobody resumes it";
}

TEST_F(PrefetchTest, APrefetchThatIsThereIsLeftAlone) {
  const TestBuild plain = MakeTestBuild({});
  const std::vector<uint64_t> blocks = OwnBlocks(plain, 3);
  const TestBuild build = WithPrefetch(plain, {blocks[2]});
  Pause(build);
  ServeHeader(build);
  Serve({build.id, FileKind::kMemfile}, 0, kPageBytes);
  clock_.Advance(kTraceSettledAfter);
  cache_->SaveTraces();
  EXPECT_EQ(registry_->Find(build.id)->metadata_version, 1u);
  EXPECT_THAT(Recorded(build)->blocks, ElementsAre(blocks[2]));
}

TEST_F(PrefetchTest, MetadataThatAnOperatorReplacedIsNotUndone) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  ServeHeader(build);
  Serve({build.id, FileKind::kMemfile}, 0, kPageBytes);
  clock_.Advance(kTraceSettledAfter);
  cache_->SaveTraces();
  ASSERT_TRUE(Recorded(build).has_value());
  ASSERT_OK(registry_->ReplaceMetadata(build.id, R"({"operator":1})"));
  Serve({build.id, FileKind::kMemfile}, 4 * kPageBytes, kPageBytes);
  clock_.Advance(kTraceSettledAfter);
  cache_->SaveTraces();
  const auto bytes = ReadWhole(**registry_->OpenFile({build.id, FileKind::kMetadata}));
  ASSERT_OK(bytes);
  EXPECT_TRUE(bytes->starts_with(R"({"operator":1,"prefetch":)")) << *bytes;
}

TEST_F(PrefetchTest, ABuildThatLeavesWhileItIsTracedIsForgotten) {
  const TestBuild build = MakeTestBuild({});
  Pause(build);
  ServeHeader(build);
  Serve({build.id, FileKind::kMemfile}, 0, kPageBytes);
  ASSERT_OK(registry_->Remove(build.id));
  clock_.Advance(kTraceSettledAfter);
  cache_->SaveTraces();
  EXPECT_THAT(replaced_, IsEmpty());
}

TEST_F(PrefetchTest, ADestinationKeepsItsOwnTraceAndWritesNothingElse) {
  const TestBuild plain = MakeTestBuild({});
  const std::vector<uint64_t> blocks = OwnBlocks(plain, 6);
  const TestBuild build = WithPrefetch(plain, {blocks[5]});
  Seed(build);
  {
    const auto loaded = cache_->GetTemplate(build.id, {}, {});
    ASSERT_OK(loaded);
    ReadBlock(**loaded, blocks[3]);
    ReadBlock(**loaded, blocks[0]);
    cache_->SaveTraces();
    clock_.Advance(kTraceSettledAfter);
    cache_->SaveTraces();
  }
  EXPECT_EQ(faults_->calls(StorageCall::kWrite) + faults_->calls(StorageCall::kDelete), 0u);
  const auto folder = TraceFolder::Open(dir_.PathOf("traces"));
  ASSERT_OK(folder);
  const auto own = folder->Load(build.id, build.memfile.size());
  ASSERT_TRUE(own.has_value());
  EXPECT_THAT(own->blocks, ElementsAre(blocks[3], blocks[0]));

  OpenCache();  // Another process, later.
  ASSERT_OK(cache_->GetTemplate(build.id, {}, {}));
  prefetches_.RunAll();
  EXPECT_EQ(Present(build), 2 * kChunk) << "what this node saw, not what the source did";
  EXPECT_EQ(
      cache_->BuildStore().Lookup({build.id, FileKind::kMemfile})->PresentBytes(3 * kChunk, kChunk),
      kChunk);
}

TEST_F(PrefetchTest, WithoutAFolderNothingIsKept) {
  options_.trace_folder = "";
  OpenCache();
  const TestBuild build = MakeTestBuild({});
  Seed(build);
  const auto loaded = cache_->GetTemplate(build.id, {}, {});
  ASSERT_OK(loaded);
  EXPECT_EQ((*loaded)->Memfile()->trace(), nullptr);
  cache_->SaveTraces();
}

TEST(TraceFolderTest, ADamagedTraceIsAsGoodAsNone) {
  TempDir dir;
  const auto folder = TraceFolder::Open(dir.PathOf("traces"));
  ASSERT_OK(folder);
  const BuildId build = MakeTestBuild({}).id;
  EXPECT_EQ(folder->Load(build, kGiB), std::nullopt);
  ASSERT_OK(folder->Save(build, {.block_bytes = kPageBytes, .blocks = {3}}));
  EXPECT_TRUE(folder->Load(build, kGiB).has_value());
  EXPECT_EQ(folder->Load(build, 2 * kPageBytes), std::nullopt) << "of another memory";
  dir.Write("traces/" + build.ToString() + ".json", "{\"prefetch\":");
  EXPECT_EQ(folder->Load(build, kGiB), std::nullopt);
  ASSERT_OK(folder->Save(build, {.block_bytes = kPageBytes, .blocks = {4}}));
  folder->Forget(build);
  EXPECT_EQ(folder->Load(build, kGiB), std::nullopt);
}

TEST(TraceFolderTest, TheLatestAreKept) {
  TempDir dir{TempDir::Place::kMemory};
  const auto folder = TraceFolder::Open(dir.PathOf("traces"));
  ASSERT_OK(folder);
  for (size_t i = 0; i < TraceFolder::kMaxTraces + 5; ++i) {
    const BuildId build = *BuildId::Parse(absl::StrFormat("aaaaaaaa-0000-4000-8000-%012d", i));
    ASSERT_OK(folder->Save(build, {.block_bytes = kPageBytes, .blocks = {i}}));
  }
  size_t kept = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.PathOf("traces"))) {
    kept += entry.is_regular_file() ? 1 : 0;
  }
  EXPECT_LE(kept, TraceFolder::kMaxTraces);
}

}  // namespace
}  // namespace peerchunk::test
