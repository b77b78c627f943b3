#include "peerchunk/peer/http2_connector.h"

#include <memory>
#include <set>
#include <string>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "peerchunk/base/mutex.h"
#include "peerchunk/peer/address_policy.h"
#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "tests/support/held_port.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

PeerAddress Address(const std::string& text) {
  return *AddressPolicy::Create({.networks = {"10.0.0.0/8", "127.0.0.0/8", "::1/128"},
                                 .own_addresses = {"127.0.0.1:1"}})
              ->Check(text);
}

constexpr BuildFileId kFile{BuildId({1, 2}), FileKind::kMemfile};

class CountingService final : public v1::ChunkService::Service {
 public:
  grpc::Status GetBuildFileInfo(grpc::ServerContext* context, const v1::GetBuildFileInfoRequest*,
                                v1::FileHead* head) override {
    MutexLock lock(mutex_);
    connections_.insert(context->peer());
    head->set_availability(v1::NOT_AVAILABLE);
    return grpc::Status::OK;
  }
  size_t connections() {
    MutexLock lock(mutex_);
    return connections_.size();
  }

 private:
  Mutex mutex_;
  std::set<std::string> connections_ PEERCHUNK_GUARDED_BY(mutex_);
};

class Http2ConnectorTest : public testing::Test {
 protected:
  std::string Serve(const std::string& host) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(host + ":0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    return host + ":" + std::to_string(port);
  }

  CountingService service_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(Http2ConnectorTest, PlaintextBeyondLoopbackIsRefusedWithWhatToDo) {
  const auto connector = Http2Connector::Create({});
  const auto refused = connector->Connect(Address("10.1.2.3:7070"), PeerLane::kDemand);
  EXPECT_TRUE(absl::IsPermissionDenied(refused.status()));
  EXPECT_NE(refused.status().message().find("--insecure-plaintext"), absl::string_view::npos);
  EXPECT_TRUE(connector->Connect(Address("127.0.0.1:7070"), PeerLane::kDemand).ok());
  EXPECT_TRUE(Http2Connector::Create({.insecure_plaintext = true})
                  ->Connect(Address("10.1.2.3:7070"), PeerLane::kDemand)
                  .ok());
}

TEST_F(Http2ConnectorTest, OneConnectionForEachLaneHoweverManyCalls) {
  const std::string address = Serve("127.0.0.1");
  const auto connector = Http2Connector::Create({});
  for (const PeerLane lane : {PeerLane::kDemand, PeerLane::kBulk}) {
    const auto client = *connector->Connect(Address(address), lane);
    EXPECT_EQ(client, *connector->Connect(Address(address), lane));
    EXPECT_FALSE(client->IsConnected());
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(client->GetBuildFileInfo({.file = kFile}, {})->availability,
                Availability::kNotAvailable);
    }
    EXPECT_TRUE(client->IsConnected());
  }
  EXPECT_EQ(service_.connections(), 2u);
  EXPECT_EQ(connector->connections(), 2u);
}

TEST_F(Http2ConnectorTest, ConnectionThatNobodyUsesIsClosedThoughItsClientIsHeld) {
  const std::string address = Serve("127.0.0.1");
  test::SimulatedClock clock;
  const auto connector =
      Http2Connector::Create({.idle_timeout = absl::Minutes(5), .clock = &clock});
  const auto client = *connector->Connect(Address(address), PeerLane::kDemand);
  ASSERT_TRUE(client->GetBuildFileInfo({.file = kFile}, {}).ok());
  // A read over the stream of reads, which stays open behind it; the service does not know it.
  (void)client->GetBuildFile({.file = kFile, .length = 10}, {})->Next(absl::InfiniteFuture());
  clock.Advance(absl::Minutes(5) - absl::Seconds(1));
  connector->CloseIdle();
  EXPECT_TRUE(client->IsConnected());
  clock.Advance(absl::Seconds(2));
  connector->CloseIdle();
  EXPECT_FALSE(client->IsConnected());
  EXPECT_EQ(connector->connections(), 0u);
  // The next call makes another.
  EXPECT_TRUE(client->GetBuildFileInfo({.file = kFile}, {}).ok());
  EXPECT_EQ(service_.connections(), 2u);
}

TEST_F(Http2ConnectorTest, Ipv6IsDialledToo) {
  const std::string address = Serve("[::1]");
  if (server_ == nullptr) GTEST_SKIP() << "no IPv6 here";
  const auto client = *Http2Connector::Create({})->Connect(Address(address), PeerLane::kBulk);
  EXPECT_TRUE(client->GetBuildFileInfo({.file = kFile}, {}).ok());
}

TEST_F(Http2ConnectorTest, ClientOutlivesItsConnector) {
  const test::HeldPort nobody;
  auto connector = Http2Connector::Create({});
  const auto client = *connector->Connect(Address(nobody.address()), PeerLane::kDemand);
  connector.reset();
  // Nobody listens there: the call ends, and nothing is touched that went with the connector.
  EXPECT_TRUE(absl::IsUnavailable(client->GetBuildFileInfo({.file = kFile}, {}).status()));
  EXPECT_TRUE(absl::IsUnavailable(client->GetBuildFile({.file = kFile, .length = 1}, {})
                                      ->Next(absl::InfiniteFuture())
                                      .status()));
}

}  // namespace
}  // namespace peerchunk
