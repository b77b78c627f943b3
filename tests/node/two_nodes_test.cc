#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "node/fetch_build.h"
#include "tests/node/running_node.h"
#include "tests/support/fault_proxy.h"

namespace peerchunk {
namespace {

using test::ExpectSame;
using test::FaultProxy;
using test::kPatience;
using test::kSlow;
using test::MakeTestBuild;
using test::OpenFolder;
using test::RunningNode;
using test::TempDir;
using test::TestBuild;

class TwoNodesTest : public testing::Test {
 protected:
  void Start(uint64_t upload_rate = 0) {
    a = std::make_unique<RunningNode>(dir.PathOf("a"), OpenFolder(dir.PathOf("base"), upload_rate));
    b = std::make_unique<RunningNode>(dir.PathOf("b"), OpenFolder(dir.PathOf("base")));
  }
  void Pause(RunningNode& on, const TestBuild& build) {
    const auto paused = on.node->Pause(build.id, build.WriteTo(dir, build.id.ToString()));
    ASSERT_TRUE(paused.ok()) << paused.status();
  }
  absl::StatusOr<std::shared_ptr<Template>> ResumeFromA(const TestBuild& build) {
    return b->node->GetTemplate(build.id, {.default_addresses = {a->address}},
                                {.deadline = Clock::Real().Now() + kPatience});
  }
  SourceBytes BytesOf(const TestBuild& build, FileKind diff) {
    const auto info = b->node->GetBuild(build.id);
    EXPECT_TRUE(info.ok()) << info.status();
    for (const NodeLayerInfo& layer : info->layers) {
      if (layer.build == build.id && layer.diff == diff) return layer.bytes;
    }
    return {};
  }

  TempDir dir;
  std::unique_ptr<RunningNode> a;
  std::unique_ptr<RunningNode> b;
};

TEST_F(TwoNodesTest, BuildIsResumedElsewhereBeforeItsUploadEnds) {
  Start(kSlow);
  const TestBuild build = MakeTestBuild({});
  Pause(*a, build);
  const auto resumed = ResumeFromA(build);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ExpectSame(**resumed, build);
  EXPECT_NE(a->node->GetBuild(build.id)->state, BuildState::kDurable);
  EXPECT_GT(BytesOf(build, FileKind::kMemfile).peer, 0);
  EXPECT_EQ(BytesOf(build, FileKind::kMemfile).base, 0);
}

TEST_F(TwoNodesTest, LayersOfAChildComeFromTheSameSource) {
  Start(kSlow);
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  Pause(*a, base);
  Pause(*a, child);
  const auto resumed = ResumeFromA(child);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ExpectSame(**resumed, child);
}

TEST_F(TwoNodesTest, FilesystemOnlyBuildIsPausedServedUploadedAndResumed) {
  Start();
  const TestBuild build = MakeTestBuild({.memfile_bytes = 0});
  Pause(*a, build);
  const auto resumed = ResumeFromA(build);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ExpectSame(**resumed, build);
  a->Settle();
  a->Stop();
  RunningNode c(dir.PathOf("c"), OpenFolder(dir.PathOf("base")));
  const auto from_base = c.node->GetTemplate(build.id, {});
  ASSERT_TRUE(from_base.ok()) << from_base.status();
  ExpectSame(**from_base, build);
}

TEST_F(TwoNodesTest, UploadedBuildIsTheSameInTheBaseFileByFile) {
  Start();
  const TestBuild build = MakeTestBuild({});
  Pause(*a, build);
  a->Settle();
  for (const auto& [kind, bytes] : build.files) {
    EXPECT_TRUE(dir.Read("base/" + BuildFileId{build.id, kind}.ObjectPath()) == bytes);
  }
  EXPECT_EQ(a->node->GetBuild(build.id)->state, BuildState::kDurable);
}

TEST_F(TwoNodesTest, ReadersChangeOverToTheBaseWhenTheUploadEnds) {
  Start(20 * 1024 * 1024);
  const TestBuild build = MakeTestBuild({.memfile_bytes = 4 * 1024 * 1024});
  Pause(*a, build);
  const auto resumed = ResumeFromA(build);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  std::string half(build.memfile.size() / 2, 'x');
  ASSERT_TRUE((*resumed)->Memfile()->ReadAt(0, absl::MakeSpan(half), {}).ok());
  EXPECT_TRUE(half == build.memfile.substr(0, half.size()));
  a->Settle();
  const SourceBytes before = BytesOf(build, FileKind::kMemfile);
  ExpectSame(**resumed, build);
  const SourceBytes after = BytesOf(build, FileKind::kMemfile);
  // The next answer said so without data; all that was still missing came from the base.
  EXPECT_LE(after.peer, before.peer + test::kUnderWay);
  EXPECT_GT(after.base, before.base);
}

TEST_F(TwoNodesTest, SourceThatDiesAfterTheUploadIsNotMissed) {
  Start();
  const TestBuild build = MakeTestBuild({});
  Pause(*a, build);
  const auto resumed = ResumeFromA(build);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  a->Settle();
  a->Stop();
  ExpectSame(**resumed, build);
}

TEST_F(TwoNodesTest, PlaceThatPolicyRefusesIsNotDialled) {
  Start(kSlow);
  const TestBuild build = MakeTestBuild({});
  Pause(*a, build);
  for (const char* address :
       {"8.8.8.8:7070", "169.254.169.254:80", "localhost:7070", "0.0.0.0:1"}) {
    const auto resumed = b->node->GetTemplate(build.id, {.default_addresses = {address}});
    EXPECT_TRUE(absl::IsPermissionDenied(resumed.status()) ||
                absl::IsInvalidArgument(resumed.status()))
        << address << ": " << resumed.status();
  }
  const auto itself = b->node->GetTemplate(build.id, {.default_addresses = {b->address}});
  EXPECT_TRUE(absl::IsPermissionDenied(itself.status())) << itself.status();
}

TEST_F(TwoNodesTest, BuildThatNobodyHasIsNotFound) {
  Start();
  const auto resumed = ResumeFromA(MakeTestBuild({.seed = 99}));
  EXPECT_TRUE(absl::IsNotFound(resumed.status())) << resumed.status();
}

TEST_F(TwoNodesTest, RestartedNodeServesAndUploadsWhatItHadPaused) {
  Start(kSlow);
  const TestBuild build = MakeTestBuild({});
  Pause(*a, build);
  a->Stop();
  a = std::make_unique<RunningNode>(dir.PathOf("a"), OpenFolder(dir.PathOf("base")));
  const auto resumed = ResumeFromA(build);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ExpectSame(**resumed, build);
  a->Settle();
  EXPECT_EQ(a->node->GetBuild(build.id)->state, BuildState::kDurable);
}

TEST_F(TwoNodesTest, OnlyCopyIsNotDeletedUnlessSaidSo) {
  Start(kSlow);
  const TestBuild build = MakeTestBuild({});
  Pause(*a, build);
  EXPECT_TRUE(absl::IsFailedPrecondition(a->node->Delete(build.id, {}).status()));
  EXPECT_TRUE(a->node->GetBuild(build.id).ok());
  EXPECT_TRUE(a->node->Delete(build.id, {.discard_only_copy = true}).ok());
  EXPECT_TRUE(absl::IsNotFound(a->node->GetBuild(build.id).status()));
}

TEST_F(TwoNodesTest, ObjectsThatAnotherBuildIsMadeOfAreNotDeletedFromTheBase) {
  Start();
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  Pause(*a, base);
  Pause(*a, child);
  ASSERT_TRUE(a->node->Drain(Clock::Real().Now() + absl::Seconds(60)).empty());
  EXPECT_TRUE(absl::IsFailedPrecondition(a->node->Delete(base.id, {.from_base = true}).status()));
  const auto deleted = a->node->Delete(child.id, {.from_base = true});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(*deleted, 6);
  const auto then = a->node->Delete(base.id, {.from_base = true});
  EXPECT_TRUE(then.ok()) << then.status();
}

// The child was not paused here: what is known of it is its header, for as long as it is loaded.
TEST_F(TwoNodesTest, ObjectsThatALoadedTemplateIsMadeOfAreNotDeletedFromTheBase) {
  Start();
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  Pause(*a, base);
  Pause(*a, child);
  a->Settle();
  auto resumed = ResumeFromA(child);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  const absl::Status refused = b->node->Delete(base.id, {.from_base = true}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_NE(refused.message().find(child.id.ToString()), absl::string_view::npos);
  ExpectSame(**resumed, child);
  resumed = absl::NotFoundError("let go");
  EXPECT_TRUE(b->node->Delete(child.id, {}).ok());  // Its copy here.
  const auto deleted = b->node->Delete(base.id, {.from_base = true});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(*deleted, 6);
}

TEST_F(TwoNodesTest, WhereAncestorsLieIsKnownAfterARestart) {
  Start(kSlow);
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  Pause(*a, base);
  ASSERT_TRUE(ResumeFromA(base).ok());
  Pause(*b, child);
  b->Stop();
  b = std::make_unique<RunningNode>(dir.PathOf("b"), OpenFolder(dir.PathOf("base"), kSlow));
  const auto info = b->node->GetBuild(child.id);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->memfile_size, child.memfile.size());
  std::set<BuildId> layers;
  for (const NodeLayerInfo& layer : info->layers) {
    layers.insert(layer.build);
    EXPECT_GT(layer.mapped_bytes, 0u);
    EXPECT_EQ(layer.sources, layer.build == base.id ? std::vector<std::string>{a->address}
                                                    : std::vector<std::string>{});
  }
  EXPECT_EQ(layers, (std::set<BuildId>{base.id, child.id}));
  const auto resumed = b->node->GetTemplate(child.id, {});
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ExpectSame(**resumed, child);
}

TEST_F(TwoNodesTest, DrainingNodeTakesNoNewPauses) {
  Start(kSlow);
  const TestBuild build = MakeTestBuild({});
  Pause(*a, build);
  const auto left = a->node->Drain(absl::InfinitePast());
  ASSERT_EQ(left.size(), 1);
  EXPECT_EQ(left[0].id, build.id);
  const TestBuild second = MakeTestBuild({.seed = 2});
  EXPECT_TRUE(
      absl::IsUnavailable(a->node->Pause(second.id, second.WriteTo(dir, "second")).status()));
}

TEST_F(TwoNodesTest, BuildThatWasOnlyCopiedIsDescribedByWhereItsBytesCameFrom) {
  Start(kSlow);
  const TestBuild build = MakeTestBuild({});
  Pause(*a, build);
  EXPECT_TRUE(absl::IsNotFound(b->node->GetBuild(build.id).status()));
  const auto provider = b->node->OpenBuild(build.id, {a->address});
  ASSERT_TRUE(provider.ok()) << provider.status();
  const auto content = ContentOf(build.id, *provider);
  const auto fetched = FetchBuild(build.id, *content, {.folder = dir.PathOf("copy")});
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  const auto info = b->node->GetBuild(build.id);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->state, BuildState::kUnknown);
  EXPECT_FALSE(info->loaded_or_recorded);
  EXPECT_EQ(info->files.size(), 6);
  for (const NodeFileInfo& file : info->files) {
    EXPECT_EQ(file.size, build.files.at(file.kind).size()) << FileName(file.kind);
    EXPECT_EQ(file.bytes.peer, file.size) << FileName(file.kind);
    EXPECT_EQ(file.bytes.base + file.bytes.wasted, 0) << FileName(file.kind);
  }
  EXPECT_TRUE(b->node->ListBuilds().empty()) << "it is no build of this node";
}

TEST_F(TwoNodesTest, ResumedBuildSaysWhereEachFileCameFrom) {
  Start(kSlow);
  const TestBuild build = MakeTestBuild({});
  Pause(*a, build);
  const auto resumed = ResumeFromA(build);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ExpectSame(**resumed, build);
  const auto info = b->node->GetBuild(build.id);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_TRUE(info->loaded_or_recorded);
  EXPECT_EQ(info->files.size(), 6);
  for (const NodeFileInfo& file : info->files) {
    EXPECT_EQ(file.bytes.peer, build.files.at(file.kind).size()) << FileName(file.kind);
  }
}

// 100 seeds: the source goes away at a random byte on its way to the reader; whatever had not come
// by then comes from the base.
TEST_F(TwoNodesTest, SourceKilledAtARandomByteChangesNothingForTheReader) {
  const TestBuild build =
      MakeTestBuild({.memfile_bytes = 2 * 1024 * 1024, .rootfs_bytes = 1024 * 1024});
  uint64_t size = 0;
  for (const auto& [kind, bytes] : build.files) size += bytes.size();
  {
    RunningNode first(dir.PathOf("first"), OpenFolder(dir.PathOf("base")));
    Pause(first, build);
    first.Settle();
  }
  int read_from_both = 0;
  for (int seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const std::string suffix = std::to_string(seed);
    // This source does not know that the base has the build: it serves it itself.
    a = std::make_unique<RunningNode>(dir.PathOf("a" + suffix),
                                      OpenFolder(dir.PathOf("empty" + suffix), kSlow));
    b = std::make_unique<RunningNode>(dir.PathOf("b" + suffix), OpenFolder(dir.PathOf("base")));
    Pause(*a, build);
    FaultProxy proxy(a->address);
    // In the last bytes on the wire, only the ends of streams may be lost.
    const uint64_t kill_at = random() % (size - 64 * 1024);
    proxy.HoldAfter(kill_at);
    bool held = false;
    std::thread fate([&] {
      held = proxy.AwaitHeld();
      a->StopServing();
      proxy.Cut();  // What the source had sent by then, and is on its way, is lost with it.
      proxy.Release();
    });
    const auto resumed = b->node->GetTemplate(build.id, {.default_addresses = {proxy.address()}},
                                              {.deadline = Clock::Real().Now() + kPatience});
    EXPECT_TRUE(resumed.ok()) << resumed.status();
    if (resumed.ok()) {
      ExpectSame(**resumed, build);  // The diffs, as devices; metadata and snapfile.
      for (const FileKind header : {FileKind::kMemfileHeader, FileKind::kRootfsHeader}) {
        EXPECT_TRUE(*(*resumed)->BlobBytes(header) == build.files.at(header));
      }
    }
    proxy.Release();
    fate.join();
    SourceBytes bytes;
    for (const auto& [kind, content] : build.files) {
      const SourceBytes file = b->node->BytesOf({build.id, kind});
      bytes.peer += file.peer;
      bytes.base += file.base;
    }
    EXPECT_TRUE(held) << "the source was not asked for all that it had";
    EXPECT_GT(bytes.base, 0) << kill_at;
    if (bytes.peer > 0 && bytes.base > 0) ++read_from_both;
    if (HasFailure()) return;
    b->Stop();
    a->Stop();
  }
  // Not of every seed: a source that dies early may not have sent one whole message, and one that
  // is slow may be overtaken by the base.
  EXPECT_GT(read_from_both, 50);
}

}  // namespace
}  // namespace peerchunk
