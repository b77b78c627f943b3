#include "peer/http2/header_block.h"

#include <random>

#include <gtest/gtest.h>

#include "peerchunk/peer/chunk_service_client.h"
#include "tests/peer/http2/scripted_server.h"

namespace peerchunk::http2 {
namespace {

using test::HeaderBlock;

TEST(HeaderBlockTest, RequestHeadIsReadByAnotherDecoder) {
  HeaderDecoder decoder;
  const auto fields = decoder.Decode(EncodeRequestHead({.path = "/a.b/C",
                                                        .authority = "10.1.2.3:7070",
                                                        .tls = true,
                                                        .timeout = absl::Milliseconds(1500)}));
  ASSERT_TRUE(fields.ok()) << fields.status();
  const HeaderList expected = {{":method", "POST"},         {":scheme", "https"},
                               {":path", "/a.b/C"},         {":authority", "10.1.2.3:7070"},
                               {"te", "trailers"},          {"content-type", "application/grpc"},
                               {"user-agent", "peerchunk"}, {"grpc-timeout", "1500000u"}};
  EXPECT_EQ(*fields, expected);
  const std::string long_path(1000, 'p');
  const auto plain = decoder.Decode(EncodeRequestHead({.path = long_path, .authority = "a"}));
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(*FindField(*plain, ":scheme"), "http");
  EXPECT_EQ(*FindField(*plain, ":path"), long_path);
  EXPECT_EQ(FindField(*plain, "grpc-timeout"), nullptr);
}

TEST(HeaderBlockTest, TimeoutsFitEightDigitsAndAreNeverShortened) {
  EXPECT_EQ(GrpcTimeout(absl::Microseconds(1)), "1u");
  EXPECT_EQ(GrpcTimeout(absl::Nanoseconds(1001)), "2u");
  EXPECT_EQ(GrpcTimeout(absl::ZeroDuration()), "1u");
  EXPECT_EQ(GrpcTimeout(-absl::Seconds(5)), "1u");
  EXPECT_EQ(GrpcTimeout(absl::Seconds(100)), "100000m");
  EXPECT_EQ(GrpcTimeout(absl::Hours(48)), "172800S");
  EXPECT_EQ(GrpcTimeout(absl::Hours(24 * 365 * 1000)), "99999999M");
}

TEST(HeaderBlockTest, MalformedOrEndlessBlocksAreErrors) {
  HeaderDecoder decoder;
  EXPECT_FALSE(HeaderDecoder().Decode("\x80").ok()) << "index 0";
  EXPECT_FALSE(HeaderDecoder()
                   .Decode(std::string("\x00\x05"
                                       "ab",
                                       4))
                   .ok())
      << "cut short";
  const std::string many = HeaderBlock(HeaderList(600, {"name", std::string(100, 'v')}));
  EXPECT_FALSE(HeaderDecoder().Decode(many).ok()) << "over the limit";
  EXPECT_TRUE(HeaderDecoder().Decode(HeaderBlock(HeaderList(60, {"name", "v"}))).ok());
}

TEST(HeaderBlockTest, RandomBlocksNeverDoMoreThanFail) {
  std::mt19937 random(7);
  const std::string good = HeaderBlock({{":status", "200"}, {"grpc-status", "0"}});
  for (int round = 0; round < 20'000; ++round) {
    std::string block = good;
    for (int flips = 1 + random() % 6; flips > 0; --flips)
      block[random() % block.size()] = random();
    (void)HeaderDecoder().Decode(block);
  }
}

TEST(CallEndTest, TrailersSayHowACallEnded) {
  EXPECT_TRUE(CallEnd({}, {{"grpc-status", "0"}}).ok());
  const absl::Status status =
      CallEnd({}, {{"grpc-status", "5"}, {"grpc-message", "not%20here%2c %zz 100%"}});
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(status.message(), "not here, %zz 100%");
  EXPECT_TRUE(absl::IsUnknown(CallEnd({}, {{"grpc-status", "77"}})));
  EXPECT_TRUE(absl::IsUnknown(CallEnd({}, {{"grpc-status", "x"}})));
}

TEST(CallEndTest, ABusyPeersHintIsKept) {
  const HeaderList trailers = {{"grpc-status", "8"}, {"peerchunk-retry-after-ms", "40"}};
  EXPECT_EQ(RetryAfter(CallEnd({}, trailers)), absl::Milliseconds(40));
  EXPECT_EQ(RetryAfter(CallEnd({}, {{"grpc-status", "8"}})), std::nullopt);
  EXPECT_EQ(RetryAfter(CallEnd({}, {{"grpc-status", "8"}, {"peerchunk-retry-after-ms", "soon"}})),
            std::nullopt);
}

TEST(CallEndTest, WhereNoGrpcServerAnsweredItsHttpStatusSpeaks) {
  const auto code = [](const char* http) { return CallEnd({{":status", http}}, {}).code(); };
  EXPECT_EQ(code("200"), absl::StatusCode::kInternal);
  EXPECT_EQ(code("401"), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(code("403"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code("404"), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(code("503"), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code("418"), absl::StatusCode::kUnknown);
  EXPECT_EQ(CallEnd({}, {{":status", "403"}}).code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace peerchunk::http2
