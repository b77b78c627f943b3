// A node whose daemon listens beyond loopback.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include "tests/node/running_node.h"

namespace peerchunk {
namespace {

using testing::HasSubstr;

class PlaintextTest : public testing::Test {
 protected:
  // Nothing really listens: the node goes by what it is told.
  absl::Status Start(NodeOptions options, const std::vector<std::string>& bound = {}) {
    options.data_folder = dir_.PathOf("node");
    options.base = test::OpenFolder(dir_.PathOf("base"));
    auto node = Node::Create(std::move(options));
    EXPECT_TRUE(node.ok()) << node.status();
    grpc::ServerBuilder builder;
    (*node)->RegisterWith(builder);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    const absl::Status started = (*node)->Start(bound);
    server->Shutdown(std::chrono::system_clock::now());
    (*node)->Shutdown(absl::InfinitePast());
    return started;
  }

  test::TempDir dir_;
};

TEST_F(PlaintextTest, IsRefusedBeyondLoopbackUnlessAskedForByName) {
  for (const std::string beyond :
       {"10.1.2.3:7070", "0.0.0.0:7070", "[::]:7070", "[fd00::1]:7070"}) {
    SCOPED_TRACE(beyond);
    NodeOptions options;
    const absl::Status refused = Start(options, {"127.0.0.1:7070", beyond});
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(beyond));
    EXPECT_THAT(std::string(refused.message()), HasSubstr("insecure_plaintext"));
    options.listen_addresses = {beyond};
    EXPECT_TRUE(absl::IsFailedPrecondition(Start(options)));
    options.insecure_plaintext = true;
    EXPECT_TRUE(Start(options).ok());
  }
}

TEST_F(PlaintextTest, IsForLoopbackOrForNobodyWhereThereAreCredentials) {
  EXPECT_TRUE(Start({}, {"127.0.0.1:7070", "[::1]:7070"}).ok());
  NodeOptions options;
  options.peer_credentials = grpc::SslCredentials({});
  EXPECT_TRUE(Start(options, {"10.1.2.3:7070"}).ok());
}

}  // namespace
}  // namespace peerchunk
