// GetBuildFile into the reader's own memory, from a peer that keeps to the protocol and one that
// does not.
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "peer/http2/single_call.h"
#include "peerchunk/v1/chunk_service.pb.h"
#include "tests/peer/http2/scripted_server.h"
#include "tests/support/sample_bytes.h"

namespace peerchunk::http2 {
namespace {

constexpr uint64_t kOffset = 8192;
constexpr size_t kBytes = 1'000'000;

std::string Data(uint64_t offset, const std::string& bytes) {
  v1::GetBuildFileResponse message;
  message.mutable_extent()->set_offset(offset);
  message.mutable_extent()->set_data(bytes);
  return message.SerializeAsString();
}

std::string Zeros(uint64_t offset, uint64_t length) {
  v1::GetBuildFileResponse message;
  message.mutable_extent()->set_offset(offset);
  message.mutable_extent()->set_zero_length(length);
  return message.SerializeAsString();
}

class PlacedStreamTest : public testing::Test {
 protected:
  // A peer that answers the one call with these messages.
  void Start(std::vector<std::string> messages, bool known_length = true) {
    auto [client, end] = test::MakeSocketPair();
    auto connection =
        std::make_shared<Connection>(std::move(client), "10.0.0.1:1", false, Clock::Real());
    server_ = std::thread([messages = std::move(messages), end = std::move(end)]() mutable {
      test::ScriptedServer server(std::move(end));
      server.ReadPreface();
      server.SendSettings();
      server.ReadFrame(FrameType::kData);
      server.SendHeaders(1);
      for (const std::string& message : messages) server.SendMessage(1, message);
      server.SendTrailers(1);
    });
    PeerRequest request{.file = {}, .offset = kOffset};
    if (known_length) request.length = kBytes;
    stream_ =
        std::make_unique<Http2PeerStream>([connection] { return connection; }, request,
                                          PeerCallOptions{.into = memory_.data()}, Clock::Real());
  }
  void TearDown() override {
    stream_ = nullptr;
    if (server_.joinable()) server_.join();
  }

  PeerExtent NextExtent() {
    auto message = stream_->Next(absl::InfiniteFuture());
    EXPECT_TRUE(message.ok()) << message.status();
    if (!message.ok() || !*message || !(*message)->extent) return {};
    return *(*message)->extent;
  }
  void ExpectEnd() {
    const auto message = stream_->Next(absl::InfiniteFuture());
    EXPECT_TRUE(message.ok()) << message.status();
    EXPECT_FALSE(message.ok() && message->has_value());
  }
  // The extent has these bytes; and, with `in_place`, where the reader wants them.
  void ExpectData(const PeerExtent& extent, const std::string& bytes, bool in_place) {
    ASSERT_EQ(extent.pieces.size(), 1u);
    EXPECT_TRUE(extent.pieces[0] == bytes);
    const bool there = extent.pieces[0].data() == memory_.data() + (extent.offset - kOffset);
    EXPECT_EQ(there, in_place) << extent.offset;
  }

  std::string memory_ = std::string(kBytes, '\0');
  std::unique_ptr<PeerStream> stream_;
  std::thread server_;
};

TEST_F(PlacedStreamTest, DataAreReceivedWhereTheirReaderWantsThem) {
  const std::string first = test::SampleBytes(600'000, 1);
  const std::string second = test::SampleBytes(300'000, 2);
  Start({Data(kOffset, first), Zeros(kOffset + 600'000, 100'000), Data(kOffset + 700'000, second)});
  ExpectData(NextExtent(), first, true);
  EXPECT_TRUE(NextExtent().zero);
  ExpectData(NextExtent(), second, true);
  ExpectEnd();
}

TEST_F(PlacedStreamTest, WithoutALengthNothingIs) {
  Start({Data(kOffset, "abc")}, /*known_length=*/false);
  ExpectData(NextExtent(), "abc", false);
  EXPECT_TRUE(memory_ == std::string(kBytes, '\0'));
}

// What was given out, and may have been checked by then, is not touched by what comes later.
TEST_F(PlacedStreamTest, APeerThatSendsBytesTwiceChangesNothing) {
  const std::string good = test::SampleBytes(kBytes, 1);
  const std::string bad(kBytes, 'x');
  Start({Data(kOffset, good), Data(kOffset, bad), Data(kOffset + 1, "y")});
  ExpectData(NextExtent(), good, true);
  ExpectData(NextExtent(), bad, false);
  ExpectData(NextExtent(), "y", false);
  ExpectEnd();
  EXPECT_TRUE(memory_ == good);
}

TEST_F(PlacedStreamTest, APeerThatSendsMoreThanWasAskedForWritesNothingBeyond) {
  const std::string more(kBytes + 1, 'x');
  Start({Data(kOffset, more)});
  ExpectData(NextExtent(), more, false);
  EXPECT_TRUE(memory_ == std::string(kBytes, '\0'));
}

}  // namespace
}  // namespace peerchunk::http2
