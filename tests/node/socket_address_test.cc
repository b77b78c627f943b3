#include "node/socket_address.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/file.h"
#include "tests/support/status_asserts.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using testing::HasSubstr;

TEST(ListenAddressTest, NumericAddressesParseIntoTheirCanonicalForm) {
  const auto v4 = ListenAddress::Parse("127.0.0.1:7070");
  ASSERT_OK(v4);
  EXPECT_EQ(v4->ToString(), "127.0.0.1:7070");
  EXPECT_EQ(v4->WithPort(1), "127.0.0.1:1");
  EXPECT_TRUE(v4->is_loopback());
  const auto v6 = ListenAddress::Parse("[0:0:0:0:0:0:0:1]:0");
  ASSERT_OK(v6);
  EXPECT_EQ(v6->ToString(), "[::1]:0");
  EXPECT_TRUE(v6->is_loopback());
  EXPECT_FALSE(ListenAddress::Parse("0.0.0.0:1")->is_loopback());
  EXPECT_FALSE(ListenAddress::Parse("[::]:1")->is_loopback());
  EXPECT_FALSE(ListenAddress::Parse("[::ffff:127.0.0.1]:1")->is_loopback());
}

TEST(ListenAddressTest, AnythingElseIsRefused) {
  for (const char* const text :
       {"", "127.0.0.1", "localhost:1", ":1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
        "127.0.0.1:-1", "127.0.0.1:1 ", "::1:1", "[::1]", "[]:1", "127.1:1", "/path:1"}) {
    EXPECT_EQ(CodeOf(ListenAddress::Parse(text)), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ListenAddressTest, WhyAnAddressCannotBeListenedOnIsSaid) {
  const File taken(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ASSERT_EQ(bind(taken.fd(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(taken.fd(), 1), 0);
  ASSERT_EQ(getsockname(taken.fd(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  const auto parsed = ListenAddress::Parse("127.0.0.1:0");
  ASSERT_OK(parsed);
  EXPECT_OK(parsed->CheckFree());
  const auto same = ListenAddress::Parse(parsed->WithPort(ntohs(address.sin_port)));
  ASSERT_OK(same);
  EXPECT_EQ(CodeOf(same->CheckFree()), absl::StatusCode::kAlreadyExists);
  const auto foreign = ListenAddress::Parse("192.0.2.1:0");
  EXPECT_THAT(std::string(foreign->CheckFree().message()), HasSubstr("no interface"));
}

TEST(ControlAddressTest, SocketsAndLoopbackOnly) {
  const auto path = ControlAddress::Parse("/run/peerchunk.sock");
  ASSERT_OK(path);
  EXPECT_TRUE(path->is_unix());
  EXPECT_EQ(path->target(), "unix:/run/peerchunk.sock");
  EXPECT_EQ(ControlAddress::Parse("unix:/run/x")->path(), "/run/x");
  const auto loopback = ControlAddress::Parse("127.0.0.1:7000");
  ASSERT_OK(loopback);
  EXPECT_FALSE(loopback->is_unix());
  EXPECT_EQ(loopback->target(), "127.0.0.1:7000");
  for (const std::string& text :
       {std::string("relative.sock"), std::string("10.0.0.1:7000"), std::string("0.0.0.0:7000"),
        std::string("[::]:1"), std::string("localhost:1"), std::string(""),
        "/" + std::string(200, 'x')}) {
    EXPECT_EQ(CodeOf(ControlAddress::Parse(text)), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace peerchunk
