// The client that dials by itself, over TLS, against gRPC's server.
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "peerchunk/peer/address_policy.h"
#include "peerchunk/peer/http2_connector.h"
#include "peerchunk/peer/tls_identity.h"
#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "tests/support/certificates.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk {
namespace {

using test::TestAuthority;
using testing::HasSubstr;

constexpr BuildFileId kFile{BuildId({1, 2}), FileKind::kMemfile};

class BytesService final : public v1::ChunkService::Service {
 public:
  grpc::Status GetBuildFileInfo(grpc::ServerContext*, const v1::GetBuildFileInfoRequest*,
                                v1::FileHead* head) override {
    head->set_availability(v1::AVAILABLE);
    head->set_total_size(77);
    return grpc::Status::OK;
  }
  grpc::Status GetBuildFile(grpc::ServerContext*, const v1::GetBuildFileRequest*,
                            grpc::ServerWriter<v1::GetBuildFileResponse>* writer) override {
    v1::GetBuildFileResponse response;
    for (const std::string& message : messages) {
      response.mutable_extent()->set_data(message);
      if (!writer->Write(response)) break;
    }
    return grpc::Status::OK;
  }

  std::vector<std::string> messages;
};

class Http2TlsTest : public testing::Test {
 protected:
  TlsFiles Files(const std::string& name, const TestAuthority::Identity& identity,
                 std::vector<std::string> peer_names = {}) {
    return {.certificate_path = folder_.Write(name + ".pem", identity.certificate),
            .key_path = folder_.Write(name + ".key", identity.key),
            .authority_path = folder_.Write(name + "-ca.pem", authority_.Pem()),
            .peer_names = std::move(peer_names)};
  }

  // A server that asks for a certificate of the authority.
  void Serve(const TestAuthority::Identity& identity) {
    grpc::SslServerCredentialsOptions options(
        GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.pem_root_certs = authority_.Pem();
    options.pem_key_cert_pairs = {{identity.key, identity.certificate}};
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port_),
                             grpc::SslServerCredentials(options), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  }

  std::shared_ptr<ChunkServiceClient> Client(std::shared_ptr<TlsIdentity> identity) {
    const auto policy =
        AddressPolicy::Create({.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}});
    connector_ = Http2Connector::Create({.tls = std::move(identity)});
    return *connector_->Connect(*policy->Check("127.0.0.1:" + std::to_string(port_)),
                                PeerLane::kBulk);
  }
  absl::Status Ask(const TlsFiles& files) {
    auto identity = TlsIdentity::Load(files);
    if (!identity.ok()) return identity.status();
    return Client(*identity)->GetBuildFileInfo({.file = kFile}, {}).status();
  }

  test::TempDir folder_;
  TestAuthority authority_;
  BytesService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<Http2Connector> connector_;
};

TEST_F(Http2TlsTest, MessagesOfAllSizesComeThrough) {
  const auto node = authority_.Issue("IP:127.0.0.1");
  for (const size_t size : {1, 100, 16'383, 16'384, 16'385, 200'000, 1 << 20}) {
    service_.messages.push_back(test::SampleBytes(size, size));
  }
  for (int i = 0; i < 16; ++i) service_.messages.push_back(test::SampleBytes(1 << 20, i));
  Serve(node);
  const auto client = Client(*TlsIdentity::Load(Files("node", node)));
  EXPECT_EQ(client->GetBuildFileInfo({.file = kFile}, {})->total_size, 77u);
  EXPECT_TRUE(client->IsConnected());
  const auto stream = client->GetBuildFile({.file = kFile}, {});
  for (const std::string& expected : service_.messages) {
    const auto message = stream->Next(absl::InfiniteFuture());
    ASSERT_OK(message.status());
    std::string got;
    for (const std::string_view piece : (*message)->extent->pieces) got.append(piece);
    ASSERT_EQ(got, expected);
  }
  EXPECT_EQ(*stream->Next(absl::InfiniteFuture()), std::nullopt);
}

TEST_F(Http2TlsTest, AServerOfAnotherAuthorityOrAddressIsNotBelieved) {
  const auto node = authority_.Issue("IP:127.0.0.1");
  const TestAuthority other;
  TlsFiles files = Files("node", node);
  folder_.Write("node-ca.pem", other.Pem());
  Serve(authority_.Issue("IP:127.0.0.1"));
  const absl::Status stranger = Ask(files);
  EXPECT_TRUE(absl::IsUnavailable(stranger));
  EXPECT_THAT(std::string(stranger.message()), HasSubstr("certificate is not accepted"));
  server_->Shutdown(std::chrono::system_clock::now());

  Serve(authority_.Issue("IP:10.0.0.1"));
  const absl::Status elsewhere = Ask(Files("node", node));
  EXPECT_TRUE(absl::IsUnavailable(elsewhere));
  EXPECT_THAT(std::string(elsewhere.message()), HasSubstr("certificate is not accepted"));
}

TEST_F(Http2TlsTest, AListOfNamesDecides) {
  const auto node = authority_.Issue("DNS:a.test,URI:spiffe://a,IP:10.9.8.7");
  Serve(node);
  EXPECT_OK(Ask(Files("node", node, {"z.test", "a.test"})));
  EXPECT_OK(Ask(Files("node", node, {"spiffe://a"})));
  EXPECT_OK(Ask(Files("node", node, {"10.9.8.7"})));
  const absl::Status refused = Ask(Files("node", node, {"z.test"}));
  EXPECT_TRUE(absl::IsUnavailable(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("none of the names"));
}

TEST_F(Http2TlsTest, WithoutACertificateOfTheAuthorityNobodyIsLetIn) {
  Serve(authority_.Issue("IP:127.0.0.1"));
  const TestAuthority other;
  TlsFiles files = Files("stranger", other.Issue("IP:127.0.0.1"));
  EXPECT_TRUE(absl::IsUnavailable(Ask(files)));
  EXPECT_TRUE(absl::IsUnavailable(Client(nullptr)->GetBuildFileInfo({.file = kFile}, {}).status()));
}

TEST_F(Http2TlsTest, RenewedFilesAreUsedByTheNextDialAndUnusableOnesAreNot) {
  const auto node = authority_.Issue("IP:127.0.0.1");
  Serve(node);
  const TestAuthority other;
  const TlsFiles files = Files("node", other.Issue("IP:127.0.0.1"));
  const auto identity = *TlsIdentity::Load(files);
  const auto client = Client(identity);
  EXPECT_TRUE(absl::IsUnavailable(client->GetBuildFileInfo({.file = kFile}, {}).status()));
  // What a tool that renews certificates leaves half done changes nothing.
  std::ofstream(files.key_path) << "not a key";
  EXPECT_TRUE(absl::IsUnavailable(client->GetBuildFileInfo({.file = kFile}, {}).status()));
  std::ofstream(files.certificate_path) << node.certificate;
  std::ofstream(files.key_path) << node.key;
  EXPECT_OK(client->GetBuildFileInfo({.file = kFile}, {}).status());
}

TEST_F(Http2TlsTest, FilesThatDoNotFitTogetherAreRefused) {
  TlsFiles files = Files("node", authority_.Issue("IP:127.0.0.1"));
  TlsFiles partial = files;
  partial.authority_path.clear();
  EXPECT_TRUE(absl::IsInvalidArgument(TlsIdentity::Load(partial).status()));
  TlsFiles mixed = files;
  mixed.key_path = Files("other", authority_.Issue("IP:127.0.0.1")).key_path;
  const absl::Status status = TlsIdentity::Load(mixed).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr(mixed.key_path));
}

}  // namespace
}  // namespace peerchunk
