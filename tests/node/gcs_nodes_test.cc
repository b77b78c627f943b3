// Two nodes whose base is a bucket: over the wire to the fake of Cloud Storage, with faults all the
// way.
#include <algorithm>
#include <filesystem>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "peerchunk/base/range.h"
#include "peerchunk/storage/gcs_storage.h"
#include "tests/node/running_node.h"
#include "tests/support/fault_storage.h"
#include "tests/support/gcs/fake_gcs.h"
#include "tests/support/gcs/fake_gcs_server.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {
namespace {

// Small pieces, so that a build of megabytes takes every path, and short waits.
GcsTuning QuickTuning() {
  GcsTuning tuning;
  tuning.read_backoff_first = tuning.write_backoff_first = absl::Milliseconds(1);
  tuning.read_backoff_most = tuning.write_backoff_most = absl::Milliseconds(20);
  tuning.pause = absl::Milliseconds(1);
  tuning.first_byte = tuning.read_stall = tuning.answer = absl::Milliseconds(500);
  tuning.write_stall = tuning.write_answer = absl::Milliseconds(500);
  tuning.one_shot_bytes = 512 * kKiB;
  tuning.parallel_bytes = 4 * kMiB;
  tuning.part_bytes = kMiB;
  tuning.segment_bytes = kMiB;
  return tuning;
}

class GcsNodesTest : public testing::Test {
 protected:
  ~GcsNodesTest() override {
    EXPECT_TRUE(fake_.violations().empty()) << testing::PrintToString(fake_.violations());
  }

  // The bucket as one process sees it.
  std::shared_ptr<StorageProvider> OpenBucket(const std::string& session_folder) {
    GcsStorageOptions options;
    options.bucket = "bucket";
    options.prefix = "base";
    options.endpoint = server_.address();
    options.insecure_plaintext = true;
    options.channels = 4;
    options.session_folder = session_folder;
    options.tuning = tuning_;
    options.metrics = &metrics_;
    auto opened = GcsStorageProvider::Open(std::move(options));
    EXPECT_OK(opened);
    return *std::move(opened);
  }
  // A node that pauses builds; its writes go through `gate`, which can hold them back.
  std::unique_ptr<RunningNode> StartA() {
    bucket_of_a_ = OpenBucket(dir_.PathOf("a-sessions"));
    gate_ = std::make_shared<FaultStorageProvider>(*bucket_of_a_);
    return std::make_unique<RunningNode>(dir_.PathOf("a"), gate_);
  }
  void HoldWritesOf(const TestBuild& build, FileKind kind) {
    StorageFault held{.call = StorageCall::kWrite};
    held.path = BuildFileId{build.id, kind}.ObjectPath();
    held.stall = true;
    gate_->AddFault(std::move(held));
  }
  void Pause(RunningNode& node, const TestBuild& build) {
    ASSERT_OK(node.node->Pause(build.id, build.WriteTo(dir_, build.id.ToString())));
  }
  static absl::StatusOr<std::shared_ptr<Template>> Resume(RunningNode& on, const TestBuild& build,
                                                          const BuildSources& sources) {
    return on.node->GetTemplate(build.id, sources, {.deadline = Clock::Real().Now() + kPatience});
  }
  static SourceBytes BytesOf(const RunningNode& node, const TestBuild& build) {
    SourceBytes sum;
    for (const auto& [kind, bytes] : build.files) {
      const SourceBytes of = node.node->BytesOf({build.id, kind});
      sum.peer += of.peer;
      sum.base += of.base;
    }
    return sum;
  }
  // Every file, byte for byte, and nothing else but what the provider keeps for itself.
  void ExpectInBucket(const TestBuild& build) {
    std::vector<std::string> names;
    for (const auto& [kind, bytes] : build.files) {
      names.push_back("base/" + BuildFileId{build.id, kind}.ObjectPath());
      EXPECT_TRUE(fake_.Bytes(names.back()) == bytes) << names.back();
    }
    std::sort(names.begin(), names.end());
    EXPECT_EQ(fake_.Names(), names);
  }

  TempDir dir_;
  Metrics metrics_;
  GcsTuning tuning_ = QuickTuning();
  FakeGcs fake_{{.read_message_bytes = 256 * kKiB}};
  FakeGcsServer server_{fake_};
  std::shared_ptr<StorageProvider> bucket_of_a_;
  std::shared_ptr<FaultStorageProvider> gate_;
};

// Uploaded by A under faults; resumed on B from A while nothing of it is in the bucket yet, and
// then, A dead, from the bucket, under faults too.
TEST_F(GcsNodesTest, BuildIsResumedFromItsSourceAndThenFromTheBucket) {
  int faults = 0;
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    const TestBuild build =
        MakeTestBuild({.memfile_bytes = 9 * kMiB, .rootfs_bytes = 2 * kMiB, .seed = seed});
    const std::string name = std::to_string(seed);
    auto a = StartA();
    RunningNode b(dir_.PathOf("b" + name), OpenBucket(""));
    for (const auto& [kind, bytes] : build.files) HoldWritesOf(build, kind);
    fake_.InjectAtRandom(seed, 0.3, 40);
    Pause(*a, build);

    const auto resumed = Resume(b, build, {.default_addresses = {a->address}});
    ASSERT_OK(resumed);
    std::string half((*resumed)->Memfile()->size() / 2, 'x');
    ASSERT_OK((*resumed)->Memfile()->ReadAt(0, absl::MakeSpan(half),
                                            {.deadline = Clock::Real().Now() + kPatience}));
    EXPECT_TRUE(half == build.memfile.substr(0, half.size()));
    EXPECT_GT(BytesOf(b, build).peer, 0u);
    EXPECT_EQ(BytesOf(b, build).base, 0u);

    gate_->ClearFaults();
    a->Settle();
    EXPECT_EQ(a->node->GetBuild(build.id)->state, BuildState::kDurable);
    ExpectInBucket(build);
    a->Stop();  // What B fetched ahead may have come from A up to here.
    const SourceBytes before = b.node->BytesOf({build.id, FileKind::kRootfs});
    ExpectSame(**resumed, build);
    const SourceBytes after = b.node->BytesOf({build.id, FileKind::kRootfs});
    EXPECT_EQ(after.peer, before.peer);
    EXPECT_GT(after.base, before.base);
    faults += fake_.faults_injected();
    fake_.ForgetFaults();

    // A third node knows of no source at all.
    RunningNode c(dir_.PathOf("c" + name), OpenBucket(""));
    const auto elsewhere = Resume(c, build, {});
    ASSERT_OK(elsewhere);
    ExpectSame(**elsewhere, build);
    for (const auto& [kind, bytes] : build.files) {
      fake_.Erase("base/" + BuildFileId{build.id, kind}.ObjectPath());
    }
  }
  EXPECT_GT(faults, 10) << "the faults did not happen";
}

// Held at its second file, between two objects, by the end of the process.
TEST_F(GcsNodesTest, RestartedNodeBringsItsBuildToTheBucket) {
  const TestBuild build = MakeTestBuild({.memfile_bytes = 9 * kMiB, .rootfs_bytes = 2 * kMiB});
  auto a = StartA();
  HoldWritesOf(build, FileKind::kRootfs);
  fake_.InjectAtRandom(7, 0.3, 40);
  Pause(*a, build);
  gate_->AwaitStalled(1);
  a->Stop();
  a = StartA();
  a->Settle();
  EXPECT_EQ(a->node->GetBuild(build.id)->state, BuildState::kDurable);
  ExpectInBucket(build);
}

// Stopped in the middle of its largest file: what is there of it stays, and the rest is sent.
TEST_F(GcsNodesTest, RestartedNodeGoesOnWithTheSessionsOfItsUpload) {
  // Nothing is sent twice for being slow.
  tuning_.write_stall = tuning_.write_answer = tuning_.answer = absl::Hours(1);
  const TestBuild build = MakeTestBuild({.memfile_bytes = 12 * kMiB, .rootfs_bytes = 2 * kMiB});
  const uint64_t parts = CeilDiv(build.files.at(FileKind::kMemfile).size(), kMiB);
  ASSERT_GT(parts, 5u);
  ASSERT_LE(parts, 4u + 8u) << "a lane for each part that stalls";
  uint64_t total = 0;
  for (const auto& [kind, bytes] : build.files) total += bytes.size();
  for (uint64_t i = 0; i < parts; ++i) {
    fake_.Inject({GcsRpc::kWriteObject, i < 4 ? GcsFault::Kind::kNone : GcsFault::Kind::kStall});
  }
  auto a = StartA();
  Pause(*a, build);
  while (fake_.faults_waiting() > 0 || fake_.Names().size() < 4) std::this_thread::yield();
  a->Stop();
  EXPECT_EQ(fake_.CallsOf(GcsRpc::kCancelResumableWrite), 0u);
  EXPECT_EQ(fake_.Names().size(), 4u) << "parts that are done stay";
  uint64_t done = 0;
  for (const std::string& name : fake_.Names()) done += fake_.Find(name)->size;

  const uint64_t sent = metrics_.CounterValue("peerchunk_gcs_written_bytes_total", {});
  a = StartA();
  a->Settle();
  EXPECT_EQ(a->node->GetBuild(build.id)->state, BuildState::kDurable);
  ExpectInBucket(build);
  uint64_t begun = 0;
  for (const FakeCallRecord& call : fake_.calls()) {
    const bool part = call.object.find(".peerchunk/parts/") != std::string::npos;
    if (call.rpc == GcsRpc::kStartResumableWrite && part) ++begun;
  }
  EXPECT_EQ(begun, parts) << "each session was begun once";
  EXPECT_LE(metrics_.CounterValue("peerchunk_gcs_written_bytes_total", {}) - sent, total - done);
}

// A node that ends between the compose of its largest file and the deletion of its parts: told to,
// or killed, which is what it wrote until then and nothing else.
TEST_F(GcsNodesTest, RestartedNodeDeletesThePartsOfWhatItHadFinished) {
  for (const bool killed : {false, true}) {
    SCOPED_TRACE(killed);
    const TestBuild build = MakeTestBuild({.memfile_bytes = 12 * kMiB, .rootfs_bytes = 2 * kMiB});
    auto a = StartA();
    for (int i = 0; i < 100; ++i) fake_.Inject({GcsRpc::kListObjects, GcsFault::Kind::kStall});
    Pause(*a, build);
    while (fake_.faults_waiting() == 100) std::this_thread::yield();
    const std::string memfile = "base/" + BuildFileId{build.id, FileKind::kMemfile}.ObjectPath();
    ASSERT_TRUE(fake_.Find(memfile));
    ASSERT_GT(fake_.Names().size(), 1u);
    const auto everything = std::filesystem::copy_options::recursive;
    if (killed) {
      for (const std::string name : {"a", "a-sessions"}) {
        std::filesystem::copy(dir_.PathOf(name), dir_.PathOf(name + "-then"), everything);
      }
    }
    a->Stop();
    if (killed) {
      for (const std::string name : {"a", "a-sessions"}) {
        std::filesystem::remove_all(dir_.PathOf(name));
        std::filesystem::rename(dir_.PathOf(name + "-then"), dir_.PathOf(name));
      }
    }
    fake_.ForgetFaults();
    a = StartA();
    a->Settle();
    EXPECT_EQ(a->node->GetBuild(build.id)->state, BuildState::kDurable);
    while (fake_.Names().size() > build.files.size()) std::this_thread::yield();
    ExpectInBucket(build);
    a->Stop();
    for (const auto& [kind, bytes] : build.files) {
      fake_.Erase("base/" + BuildFileId{build.id, kind}.ObjectPath());
    }
    std::filesystem::remove_all(dir_.PathOf("a"));
    std::filesystem::remove_all(dir_.PathOf(build.id.ToString()));
  }
}

// Deleted while its upload fails again and again.
TEST_F(GcsNodesTest, DiscardedBuildLeavesNothingInTheBucket) {
  tuning_.write_budget = absl::Seconds(5);
  const TestBuild build = MakeTestBuild({.memfile_bytes = 12 * kMiB, .rootfs_bytes = 2 * kMiB});
  auto a = StartA();
  for (int i = 0; i < 1000; ++i) fake_.Inject({GcsRpc::kComposeObject, GcsFault::Kind::kError});
  Pause(*a, build);
  while (fake_.faults_waiting() > 990) std::this_thread::yield();
  ASSERT_OK(a->node->Delete(build.id, {.discard_only_copy = true}));
  while (!fake_.Names().empty() || fake_.open_sessions() > 0) std::this_thread::yield();
}

}  // namespace
}  // namespace peerchunk::test
