// Calls that end inside a message: both ways to dial a peer say the same of it.
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "peerchunk/base/file.h"
#include "peerchunk/peer/grpc_connector.h"
#include "peerchunk/peer/http2_connector.h"
#include "tests/peer/http2/scripted_server.h"

namespace peerchunk {
namespace {

using MakeConnector = std::shared_ptr<ChunkServiceConnector> (*)();

class CutMessageTest : public testing::TestWithParam<MakeConnector> {
 protected:
  CutMessageTest() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(listener_.fd(), generic, size), 0);
    EXPECT_EQ(listen(listener_.fd(), 1), 0);
    EXPECT_EQ(getsockname(listener_.fd(), generic, &size), 0);
    port_ = ntohs(address.sin_port);
  }

  // What a reader hears of a call that ends with `code` before the whole of a message is there.
  absl::Status EndOf(const std::string& code) {
    std::thread peer([&] {
      test::ScriptedServer server(File(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC)));
      server.ReadPreface();
      server.SendSettings();
      server.ReadFrame(http2::FrameType::kData);
      server.SendHeaders(1);
      server.SendFrame(http2::FrameType::kData, 0, 1, test::Prefixed("0123456789").substr(0, 9));
      server.SendTrailers(1, code);
      while (server.ReadFrame().header.type != 255) {
      }
    });
    absl::Status end;
    {
      const auto policy =
          AddressPolicy::Create({.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}});
      const auto connector = GetParam()();
      const auto client = *connector->Connect(*policy->Check("127.0.0.1:" + std::to_string(port_)),
                                              PeerLane::kDemand);
      const auto stream = client->GetBuildFile({.file = {BuildId({1}), FileKind::kMemfile}}, {});
      end = stream->Next(absl::InfiniteFuture()).status();
    }
    peer.join();
    return end;
  }

  const File listener_;
  int port_ = 0;
};

INSTANTIATE_TEST_SUITE_P(
    Transports, CutMessageTest,
    testing::Values(
        +[]() -> std::shared_ptr<ChunkServiceConnector> { return GrpcConnector::Create({}); },
        +[]() -> std::shared_ptr<ChunkServiceConnector> { return Http2Connector::Create({}); }),
    [](const auto& info) { return info.index == 0 ? "Grpc" : "Http2"; });

TEST_P(CutMessageTest, AnErrorInsideAMessageIsTheCallsEnd) {
  EXPECT_TRUE(absl::IsCancelled(EndOf("1")));
  EXPECT_TRUE(absl::IsUnavailable(EndOf("14")));
}

}  // namespace
}  // namespace peerchunk
