#include "peerchunk/peer/grpc_connector.h"

#include <map>
#include <string>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "peer/grpc/channel_arguments.h"
#include "peerchunk/peer/address_policy.h"
#include "tests/support/held_port.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

PeerAddress Address(const char* text) {
  return *AddressPolicy::Create(
              {.networks = {"10.0.0.0/8", "127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}})
              ->Check(text);
}

TEST(GrpcConnectorTest, PlaintextBeyondLoopbackIsRefusedWithWhatToDo) {
  const auto connector = GrpcConnector::Create({});
  const auto refused = connector->Connect(Address("10.1.2.3:7070"), PeerLane::kDemand);
  EXPECT_TRUE(absl::IsPermissionDenied(refused.status()));
  EXPECT_NE(refused.status().message().find("--insecure-plaintext"), absl::string_view::npos);
  EXPECT_EQ(connector->channels(), 0);
  EXPECT_TRUE(connector->Connect(Address("127.0.0.1:7070"), PeerLane::kDemand).ok());
}

TEST(GrpcConnectorTest, PlaintextBeyondLoopbackIsDialledWhenAllowedByName) {
  const auto connector = GrpcConnector::Create({.insecure_plaintext = true});
  EXPECT_TRUE(connector->Connect(Address("10.1.2.3:7070"), PeerLane::kDemand).ok());
}

TEST(GrpcConnectorTest, CredentialsLetAnyAddressOfThePolicyBeDialled) {
  const auto connector =
      GrpcConnector::Create({.credentials = grpc::SslCredentials(grpc::SslCredentialsOptions())});
  EXPECT_TRUE(connector->Connect(Address("10.1.2.3:7070"), PeerLane::kDemand).ok());
}

TEST(GrpcConnectorTest, OneChannelForEachAddressAndLane) {
  const auto connector = GrpcConnector::Create({});
  const auto a = connector->Connect(Address("127.0.0.1:7070"), PeerLane::kDemand);
  const auto again = connector->Connect(Address("127.0.0.1:7070"), PeerLane::kDemand);
  const auto bulk = connector->Connect(Address("127.0.0.1:7070"), PeerLane::kBulk);
  const auto other = connector->Connect(Address("127.0.0.1:7071"), PeerLane::kDemand);
  EXPECT_EQ(*a, *again);
  EXPECT_NE(*a, *bulk);
  EXPECT_NE(*a, *other);
  EXPECT_EQ(connector->channels(), 3);
}

TEST(GrpcConnectorTest, ChannelThatNobodyUsesIsClosedAndOneInUseIsKept) {
  test::SimulatedClock clock;
  const auto connector = GrpcConnector::Create({.idle_timeout = absl::Minutes(5), .clock = &clock});
  auto idle = *connector->Connect(Address("127.0.0.1:7070"), PeerLane::kDemand);
  const auto used = *connector->Connect(Address("127.0.0.1:7071"), PeerLane::kDemand);
  const std::weak_ptr<ChunkServiceClient> watch = idle;
  idle.reset();
  clock.Advance(absl::Minutes(5) - absl::Nanoseconds(1));
  (void)connector->Connect(Address("127.0.0.1:7072"), PeerLane::kDemand);
  EXPECT_FALSE(watch.expired());
  clock.Advance(absl::Nanoseconds(1));
  (void)connector->Connect(Address("127.0.0.1:7073"), PeerLane::kDemand);
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(connector->channels(), 3);
  EXPECT_EQ(*connector->Connect(Address("127.0.0.1:7071"), PeerLane::kDemand), used);
}

TEST(GrpcConnectorTest, ChannelArgumentsAreThoseThatWereMeasured) {
  const grpc::ChannelArguments arguments = PeerChannelArguments(PeerLane::kBulk, absl::Minutes(5));
  const grpc_channel_args raw = arguments.c_channel_args();
  std::map<std::string, int> numbers;
  for (size_t i = 0; i < raw.num_args; ++i) {
    if (raw.args[i].type == GRPC_ARG_INTEGER) numbers[raw.args[i].key] = raw.args[i].value.integer;
  }
  // Nothing else: BDP probing, lookahead and zero-copy stay at their defaults.
  EXPECT_EQ(numbers, (std::map<std::string, int>{{"grpc.max_receive_message_length", 2 << 20},
                                                 {"grpc.use_local_subchannel_pool", 1},
                                                 {"peerchunk.lane", 1},
                                                 {"grpc.initial_reconnect_backoff_ms", 100},
                                                 {"grpc.max_reconnect_backoff_ms", 2'000},
                                                 {"grpc.client_idle_timeout_ms", 300'000},
                                                 {"grpc.enable_http_proxy", 0},
                                                 {"grpc.service_config_disable_resolution", 1},
                                                 {"grpc.enable_retries", 0}}));
}

TEST(GrpcConnectorTest, ClientOutlivesItsConnector) {
  const test::HeldPort nobody;
  auto connector = GrpcConnector::Create({});
  const auto client = *connector->Connect(Address(nobody.address().c_str()), PeerLane::kDemand);
  connector.reset();
  // Nobody listens there: the call ends, and nothing is touched that went with the connector.
  EXPECT_FALSE(
      client->GetBuildFileInfo({.file = {BuildId::Random(), FileKind::kMemfile}}, {}).ok());
}

}  // namespace
}  // namespace peerchunk
