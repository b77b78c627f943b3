// Real daemons whose base is a bucket: the fake of Cloud Storage, over the wire, with faults.
#include <gtest/gtest.h>

#include "peerchunk/base/range.h"
#include "tests/support/gcs/fake_gcs.h"
#include "tests/support/gcs/fake_gcs_server.h"
#include "tests/support/tool_fixture.h"

namespace peerchunk::test {
namespace {

class BucketTest : public ToolFixture {
 protected:
  // Inherited by every program that is started.
  void SetUp() override { setenv("STORAGE_EMULATOR_HOST_GRPC", server_.address().c_str(), 1); }
  void TearDown() override {
    unsetenv("STORAGE_EMULATOR_HOST_GRPC");
    EXPECT_TRUE(fake_.violations().empty()) << testing::PrintToString(fake_.violations());
  }

  nlohmann::json Fetch(const TestBuild& build, const std::string& source, const std::string& out) {
    std::vector<std::string> arguments = {
        "--json", "fetch", build.id.ToString(), "--base", kBucket, "--out", Path(out)};
    if (!source.empty()) arguments = arguments + std::vector<std::string>{"--source", source};
    const Finished fetched = RunProgram(Peerchunk(arguments));
    EXPECT_EQ(fetched.exit_code, 0) << fetched.err;
    ExpectFetched(build, out);
    return nlohmann::json::parse(fetched.out, nullptr, /*allow_exceptions=*/false);
  }

  static constexpr char kBucket[] = "gs://bucket/base";
  FakeGcs fake_{{.read_message_bytes = 256 * kKiB}};
  FakeGcsServer server_{fake_};
};

TEST_F(BucketTest, BuildComesFromItsSourceAndWhenThatIsDeadFromTheBucket) {
  TestBuild build;
  {
    // Its upload is under way and far from over; then the node dies.
    DaemonProcess a(Path("a"), kBucket, kSlowBase);
    build = PauseOn(a, {.memfile_bytes = 12 * kMiB, .rootfs_bytes = 2 * kMiB, .seed = 3});
    const nlohmann::json from_a = Fetch(build, a.address(), "from-source");
    EXPECT_EQ(from_a["bytes_from_base"], 0u);
    EXPECT_GT(from_a["bytes_from_peer"], 0u);
    a.process().Signal(SIGKILL);
    a.process().Wait();
  }
  std::string address;
  {
    // What it had not uploaded, it does after its restart. (No stalls: at the budgets of production
    // they take minutes.)
    using Kind = GcsFault::Kind;
    fake_.Inject({.rpc = GcsRpc::kWriteObject, .kind = Kind::kError, .after = 1});
    fake_.Inject({.rpc = GcsRpc::kWriteObject, .kind = Kind::kPersistsLess});
    fake_.Inject({.rpc = GcsRpc::kWriteObject, .kind = Kind::kLostAnswer});
    fake_.Inject({.rpc = GcsRpc::kGetObject, .kind = Kind::kError});
    DaemonProcess a(Path("a"), kBucket);
    address = a.address();
    Durable(a, build);
    a.process().Signal(SIGKILL);
    a.process().Wait();
    EXPECT_GE(fake_.faults_injected(), 3);
  }
  for (const auto& [kind, bytes] : build.files) {
    EXPECT_TRUE(fake_.Bytes("base/" + BuildFileId{build.id, kind}.ObjectPath()) == bytes);
  }
  const nlohmann::json from_bucket = Fetch(build, address, "from-bucket");
  EXPECT_EQ(from_bucket["bytes_from_peer"], 0u);
  EXPECT_GT(from_bucket["bytes_from_base"], 0u);
}

}  // namespace
}  // namespace peerchunk::test
