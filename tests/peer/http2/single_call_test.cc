// A GetBuildFile by itself, from a peer that does what it should not.
#include "peer/http2/single_call.h"

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "tests/peer/http2/scripted_server.h"

namespace peerchunk::http2 {
namespace {

class SingleCallTest : public testing::Test {
 protected:
  // `play` runs on a thread of its own, behind the preface.
  void Start(std::function<void(test::ScriptedServer&)> play) {
    auto [client, end] = test::MakeSocketPair();
    connection_ =
        std::make_shared<Connection>(std::move(client), "10.0.0.1:1", false, Clock::Real());
    server_ = std::thread([play = std::move(play), end = std::move(end)]() mutable {
      test::ScriptedServer server(std::move(end));
      server.ReadPreface();
      server.SendSettings();
      play(server);
    });
  }
  void TearDown() override {
    connection_ = nullptr;
    server_.join();
  }

  std::unique_ptr<SingleCall> Call() {
    return std::make_unique<SingleCall>([this] { return connection_; }, "/s/m", "ask",
                                        PeerCallOptions(), Clock::Real());
  }

  std::shared_ptr<Connection> connection_;
  std::thread server_;
};

TEST_F(SingleCallTest, AnErrorInsideAMessageIsTheCallsEnd) {
  Start([](test::ScriptedServer& server) {
    for (const auto& [stream, code] : {std::pair(1, "1"), std::pair(3, "14")}) {
      server.ReadFrame(FrameType::kData);
      server.SendHeaders(stream);
      server.SendFrame(FrameType::kData, 0, stream, test::Prefixed("0123456789").substr(0, 9));
      server.SendTrailers(stream, code);
    }
  });
  for (const auto code : {absl::StatusCode::kCancelled, absl::StatusCode::kUnavailable}) {
    EXPECT_EQ(Call()->Next(absl::InfiniteFuture()).status().code(), code);
  }
}

// Its window alone would let in a million and a half of them.
TEST_F(SingleCallTest, MessagesOfNothingAreNotKeptWithoutEnd) {
  constexpr int kSent = 200'000;
  Start([](test::ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.SendHeaders(1);
    std::string bytes;
    for (int i = 0; i < kSent; ++i) bytes += test::Prefixed("");
    server.SendFrame(FrameType::kData, 0, 1, bytes);
    server.ReadFrame(FrameType::kData);
    server.Answer(3, "answer");
    EXPECT_EQ(server.ReadFrame(FrameType::kRstStream).header.stream, 1u);
  });
  const auto call = Call();
  const auto other = Call();
  EXPECT_TRUE((*other->Next(absl::InfiniteFuture())).has_value());  // All of it is here by now.
  int taken = 0;
  absl::StatusOr<std::optional<MessageBytes>> message;
  while ((message = call->Next(absl::InfiniteFuture())).ok()) {
    ASSERT_TRUE(message->has_value());
    ++taken;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(message.status())) << message.status();
  EXPECT_GT(taken, 100'000) << "a slow reader of a large file of zeros may have as many to come";
  EXPECT_LT(taken, kSent);
  EXPECT_TRUE(call->has_ended());
}

}  // namespace
}  // namespace peerchunk::http2
