// A working set's way: B resumes a build of A's, C is given what B read first, and B what it read
// itself.
#include <filesystem>
#include <set>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/node/running_node.h"
#include "tests/support/fault_storage.h"

namespace peerchunk {
namespace {

using test::kPatience;
using test::kSlow;
using test::MakeTestBuild;
using test::OpenFolder;
using test::RunningNode;
using test::TempDir;
using test::TestBuild;

class WorkingSetOverNodesTest : public testing::Test {
 protected:
  static NodeOptions SmallChunks() {
    NodeOptions options;
    options.chunk_bytes = 64 * kKiB;
    return options;
  }
  absl::StatusOr<std::shared_ptr<Template>> Resume(RunningNode& on) {
    return on.node->GetTemplate(build_.id, {.default_addresses = {a_.address}},
                                {.deadline = Clock::Real().Now() + kPatience});
  }
  static void ReadPage(Template& from, uint64_t page) {
    std::string bytes(kPageBytes, '?');
    ASSERT_TRUE(from.Memfile()
                    ->ReadAt(page * kPageBytes, absl::MakeSpan(bytes),
                             {.deadline = Clock::Real().Now() + kPatience})
                    .ok());
  }
  // Looks until it holds. A test that hangs here is ended by its runner.
  template <typename Condition>
  static void Await(const Condition& condition) {
    while (!condition()) Clock::Real().SleepUntil(Clock::Real().Now() + absl::Milliseconds(20));
  }

  TempDir dir_;
  const TestBuild build_ = MakeTestBuild({.memfile_bytes = 8 * 1024 * 1024});
  RunningNode a_{dir_.PathOf("a"), OpenFolder(dir_.PathOf("base"), kSlow), SmallChunks()};
  std::shared_ptr<StorageProvider> base_ = OpenFolder(dir_.PathOf("base"));
};

TEST_F(WorkingSetOverNodesTest, ReachesTheNextNodeOverThePeerLinkAndTheBaseOnlyFromItsSource) {
  const auto watched = std::make_shared<test::FaultStorageProvider>(*base_);
  auto b = std::make_unique<RunningNode>(dir_.PathOf("b"), watched, SmallChunks());
  ASSERT_TRUE(a_.node->Pause(build_.id, build_.WriteTo(dir_, "in")).ok());
  {
    const auto resumed = Resume(*b);
    ASSERT_TRUE(resumed.ok()) << resumed.status();
    for (const uint64_t page : {700, 20, 1500}) ReadPage(**resumed, page);
  }
  const auto metadata_version = [&] {
    return a_.node->templates()
        .Resolve({build_.id, FileKind::kMetadata}, true, false)
        ->head.version;
  };
  Await([&] { return metadata_version() > 1; });
  const std::string own = dir_.PathOf("b/traces/" + build_.id.ToString() + ".json");
  Await([&] { return std::filesystem::exists(own); });

  // What A serves now is what it had, and more.
  RunningNode c(dir_.PathOf("c"), base_, SmallChunks());
  const auto third = Resume(c);
  ASSERT_TRUE(third.ok()) << third.status();
  const auto metadata = nlohmann::json::parse((*third)->MetadataFile());
  const auto& memory = metadata.at("prefetch").at("memory");
  std::vector<uint64_t> pages;
  for (const auto& index : memory.at("indices")) {
    pages.push_back(index.get<uint64_t>() * memory.at("block_size").get<uint64_t>() / kPageBytes);
  }
  EXPECT_FALSE(pages.empty());
  const std::string& given = build_.files.at(FileKind::kMetadata);
  EXPECT_EQ((*third)->MetadataFile().substr(0, given.rfind('}')),
            given.substr(0, given.rfind('}')));
  // C fetches them though its guest reads nothing.
  const MetricLabels ok{{"outcome", "ok"}};
  Await([&] {
    return c.metrics.CounterValue("peerchunk_working_set_bytes_total", ok) >=
           pages.size() * memory.at("block_size").get<uint64_t>();
  });
  const auto read = c.node->BytesOf({build_.id, FileKind::kMemfile});
  EXPECT_GT(read.peer, 0u);
  EXPECT_LE(read.peer, pages.size() * 64 * kKiB) << "the rest of the memory stays cold";

  // B's own trace is B's alone.
  b->Stop();
  EXPECT_EQ(watched->calls(test::StorageCall::kWrite), 0u);
  EXPECT_EQ(watched->calls(test::StorageCall::kDelete), 0u);
  b = std::make_unique<RunningNode>(dir_.PathOf("b"), watched, SmallChunks());
  ASSERT_TRUE(Resume(*b).ok());
  Await([&] { return b->metrics.CounterValue("peerchunk_working_set_bytes_total", ok) > 0; });
  b->Stop();
  c.Stop();
}

TEST_F(WorkingSetOverNodesTest, CopiesOfABuildAreNoResume) {
  RunningNode b(dir_.PathOf("b"), base_, SmallChunks());
  ASSERT_TRUE(a_.node->Pause(build_.id, build_.WriteTo(dir_, "in")).ok());
  const auto provider = b.node->OpenBuild(build_.id, {a_.address});
  ASSERT_TRUE(provider.ok());
  const auto header =
      (*provider)->OpenBlob(BuildFileId{build_.id, FileKind::kMemfileHeader}.ObjectPath());
  StringSink sink(kGiB);
  ASSERT_TRUE((*header)->WriteTo(sink, {}).ok());
  const auto memfile =
      (*provider)->OpenSeekable(BuildFileId{build_.id, FileKind::kMemfile}.ObjectPath());
  std::string bytes(kMiB, '?');
  ASSERT_TRUE((*memfile)->ReadAt(0, absl::MakeSpan(bytes), {.priority = Priority::kPrefetch}).ok());
  // Were it noted, the copy of a resume that follows would be in the same trace.
  const auto resumed = Resume(b);
  ASSERT_TRUE(resumed.ok());
  ReadPage(**resumed, 1500);
  const auto metadata = [&] {
    std::string out(64 * kKiB, '\0');
    const auto served = a_.node->templates().Resolve({build_.id, FileKind::kMetadata}, true, true);
    out.resize(*served->file->ReadAt(0, absl::MakeSpan(out), {}));
    return nlohmann::json::parse(out);
  };
  Await([&] { return metadata().contains("prefetch"); });
  EXPECT_LE(metadata().at("prefetch").at("memory").at("indices").size(), 9u)
      << "the page, and at most what little of its chunk came with it";
}

}  // namespace
}  // namespace peerchunk
