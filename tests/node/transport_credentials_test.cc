#include "node/transport_credentials.h"

#include <chrono>
#include <filesystem>
#include <memory>
#include <thread>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "tests/support/certificates.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using test::TestAuthority;
using testing::HasSubstr;

class AnsweringService final : public v1::ChunkService::Service {
 public:
  grpc::Status GetBuildFileInfo(grpc::ServerContext*, const v1::GetBuildFileInfoRequest*,
                                v1::FileHead*) override {
    return grpc::Status::OK;
  }
};

class TransportCredentialsTest : public testing::Test {
 protected:
  TlsFiles Files(const std::string& name, const TestAuthority::Identity& identity,
                 std::vector<std::string> peer_names = {}) {
    return {.certificate_path = folder_.Write(name + ".pem", identity.certificate),
            .key_path = folder_.Write(name + ".key", identity.key),
            .authority_path = folder_.Write("ca.pem", authority_.Pem()),
            .peer_names = std::move(peer_names)};
  }

  // A server on 127.0.0.1.
  class Server {
   public:
    explicit Server(const absl::StatusOr<TransportCredentials>& credentials) {
      EXPECT_OK(credentials.status());
      grpc::ServerBuilder builder;
      builder.AddListeningPort("127.0.0.1:0", credentials->server, &port_);
      builder.RegisterService(&service_);
      running_ = builder.BuildAndStart();
    }
    // What a client hears that dials it anew.
    grpc::StatusCode Call(const std::shared_ptr<grpc::ChannelCredentials>& client) {
      grpc::ChannelArguments own_connection;
      own_connection.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      const auto stub = v1::ChunkService::NewStub(grpc::CreateCustomChannel(
          "ipv4:127.0.0.1:" + std::to_string(port_), client, own_connection));
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
      v1::FileHead head;
      return stub->GetBuildFileInfo(&context, {}, &head).error_code();
    }

   private:
    AnsweringService service_;
    int port_ = 0;
    std::unique_ptr<grpc::Server> running_;
  };

  static grpc::StatusCode Call(const absl::StatusOr<TransportCredentials>& server,
                               const std::shared_ptr<grpc::ChannelCredentials>& client) {
    return Server(server).Call(client);
  }

  test::TempDir folder_;
  TestAuthority authority_;
};

TEST_F(TransportCredentialsTest, NoFilesArePlaintext) {
  const auto credentials = MakeTransportCredentials({});
  ASSERT_OK(credentials);
  EXPECT_EQ(credentials->channel, nullptr);
  EXPECT_EQ(credentials->server, nullptr);
}

TEST_F(TransportCredentialsTest, NodesOfOneAuthorityTalk) {
  const auto node =
      MakeTransportCredentials(Files("node", authority_.Issue("DNS:node.test,IP:127.0.0.1")));
  ASSERT_OK(node);
  EXPECT_EQ(Call(node, node->channel), grpc::StatusCode::OK);
}

TEST_F(TransportCredentialsTest, WithoutACertificateOrWithAStrangersNobodyIsLetIn) {
  const auto node = MakeTransportCredentials(Files("node", authority_.Issue("IP:127.0.0.1")));
  ASSERT_OK(node);
  EXPECT_EQ(Call(node, grpc::InsecureChannelCredentials()), grpc::StatusCode::UNAVAILABLE);
  grpc::SslCredentialsOptions one_sided;
  one_sided.pem_root_certs = authority_.Pem();
  EXPECT_EQ(Call(node, grpc::SslCredentials(one_sided)), grpc::StatusCode::UNAVAILABLE);

  const TestAuthority other;
  const TestAuthority::Identity stranger = other.Issue("IP:127.0.0.1");
  const auto foreign = MakeTransportCredentials(Files("stranger", stranger));
  ASSERT_OK(foreign);
  EXPECT_EQ(Call(node, foreign->channel), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Call(foreign, node->channel), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TransportCredentialsTest, WithoutAListTheCertificateHasToBeForTheAddressDialled) {
  const auto elsewhere = MakeTransportCredentials(Files("node", authority_.Issue("IP:10.0.0.1")));
  ASSERT_OK(elsewhere);
  EXPECT_EQ(Call(elsewhere, elsewhere->channel), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TransportCredentialsTest, AListOfNamesDecidesInBothDirections) {
  const TestAuthority::Identity good = authority_.Issue("DNS:a.test");
  const TestAuthority::Identity bad = authority_.Issue("DNS:b.test,IP:127.0.0.1");
  const auto listed = MakeTransportCredentials(Files("good", good, {"z.test", "a.test"}));
  const auto unlisted = MakeTransportCredentials(Files("bad", bad, {"z.test", "a.test"}));
  ASSERT_OK(listed);
  ASSERT_OK(unlisted);
  EXPECT_EQ(Call(listed, listed->channel), grpc::StatusCode::OK);
  EXPECT_EQ(Call(listed, unlisted->channel), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Call(unlisted, listed->channel), grpc::StatusCode::UNAVAILABLE);
}

// What gRPC has read counts until it looks again, which it does in real time.
TEST_F(TransportCredentialsTest, AServerShowsRenewedFilesWithoutARestart) {
  const TestAuthority other;
  const auto client = MakeTransportCredentials(Files("client", authority_.Issue("IP:127.0.0.1")));
  ASSERT_OK(client);
  TlsFiles files = Files("node", other.Issue("IP:127.0.0.1"));
  files.authority_path = folder_.Write("own-ca.pem", authority_.Pem());
  Server server(MakeTransportCredentials(files, /*reload_seconds=*/1));
  EXPECT_EQ(server.Call(client->channel), grpc::StatusCode::UNAVAILABLE);
  Files("node", authority_.Issue("IP:127.0.0.1"));
  while (server.Call(client->channel) != grpc::StatusCode::OK) std::this_thread::yield();

  // So with the authority: whom it let in before, it does not any more.
  folder_.Write("own-ca.pem", other.Pem());
  while (server.Call(client->channel) == grpc::StatusCode::OK) std::this_thread::yield();
}

TEST_F(TransportCredentialsTest, WhatIsMissingOrNoPemIsNamed) {
  TlsFiles files = Files("node", authority_.Issue("IP:127.0.0.1"));
  TlsFiles partial = files;
  partial.key_path.clear();
  EXPECT_THAT(std::string(MakeTransportCredentials(partial).status().message()),
              HasSubstr("all three or none"));
  TlsFiles gone = files;
  gone.key_path = folder_.PathOf("gone.key");
  EXPECT_EQ(CodeOf(MakeTransportCredentials(gone)), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(MakeTransportCredentials(gone).status().message()),
              HasSubstr("--tls-key " + gone.key_path));
  TlsFiles garbage = files;
  garbage.authority_path = folder_.Write("garbage.pem", "nothing");
  EXPECT_THAT(std::string(MakeTransportCredentials(garbage).status().message()),
              HasSubstr("garbage.pem: not a PEM file"));
  EXPECT_EQ(CodeOf(MakeTransportCredentials({.peer_names = {"a"}})),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace peerchunk
