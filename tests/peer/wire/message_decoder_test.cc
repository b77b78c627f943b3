#include "peer/wire/message_decoder.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {
namespace {

// The bytes cut into pieces at random places, as a transport may deliver them.
MessageBytes Buffer(std::string bytes, std::mt19937* random = nullptr) {
  const auto kept = std::make_shared<const std::string>(std::move(bytes));
  MessageBytes message{.pieces = {}, .owner = kept};
  size_t at = 0;
  while (at < kept->size()) {
    const size_t left = kept->size() - at;
    const size_t size = random == nullptr ? left : std::min<size_t>(left, (*random)() % 40);
    message.pieces.push_back(std::string_view(*kept).substr(at, size));
    at += size;
  }
  return message;
}

v1::GetBuildFileResponse DataMessage(const std::string& data) {
  v1::GetBuildFileResponse message;
  message.mutable_extent()->set_offset(300);
  message.mutable_extent()->set_crc32c(Crc32c(data));
  message.mutable_extent()->set_data(data);
  return message;
}

absl::StatusCode CodeOf(const std::string& bytes) {
  return MessageDecoder::Decode(Buffer(bytes)).status().code();
}

TEST(MessageDecoderTest, ReadsWhatGeneratedCodeWritesHoweverItIsCut) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const std::string data(1 + random() % 3000, static_cast<char>(random()));
    v1::GetBuildFileResponse message = DataMessage(data);
    message.mutable_head()->set_availability(v1::AVAILABLE);
    message.mutable_head()->set_total_size(random());
    message.set_last(random() % 2 == 0);
    message.set_next_offset(random());
    const auto decoded = MessageDecoder::Decode(Buffer(message.SerializeAsString(), &random));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->message().head->total_size, message.head().total_size());
    EXPECT_EQ(decoded->message().last, message.last());
    EXPECT_EQ(decoded->message().next_offset, message.next_offset());
    std::string got;
    for (std::string_view piece : decoded->message().extent->pieces) got.append(piece);
    EXPECT_EQ(got, data);
  }
}

TEST(MessageDecoderTest, PiecesStayRightWhenTheDecoderMoves) {
  auto decoded = MessageDecoder::Decode(Buffer(DataMessage("abcdef").SerializeAsString()));
  ASSERT_TRUE(decoded.ok());
  const MessageDecoder moved = *std::move(decoded);
  ASSERT_EQ(moved.message().extent->pieces.size(), 1);
  EXPECT_EQ(moved.message().extent->pieces[0], "abcdef");
}

TEST(MessageDecoderTest, MessageCutAnywhereInsideAFieldIsDataLoss) {
  const std::string whole = DataMessage("0123456789").SerializeAsString();
  for (size_t size = 1; size < whole.size(); ++size) {
    EXPECT_EQ(CodeOf(whole.substr(0, size)), absl::StatusCode::kDataLoss) << size;
  }
}

TEST(MessageDecoderTest, UnknownFieldsAreSkippedAlsoBehindTheData) {
  std::string bytes = DataMessage("abc").SerializeAsString();
  bytes += std::string("\xf8\x06\x05", 3);              // Field 111, varint.
  bytes += std::string("\xfa\x06\x02hi", 5);            // Field 111, bytes.
  bytes += std::string("\xfd\x06\x01\x02\x03\x04", 6);  // Field 111, fixed32.
  EXPECT_EQ(CodeOf(bytes), absl::StatusCode::kOk);
}

TEST(MessageDecoderTest, MoreThanOneMiBOfDataIsDataLoss) {
  EXPECT_EQ(CodeOf(DataMessage(std::string(1024 * 1024, 'x')).SerializeAsString()),
            absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(DataMessage(std::string(1024 * 1024 + 1, 'x')).SerializeAsString()),
            absl::StatusCode::kDataLoss);
}

TEST(MessageDecoderTest, EmptyExtentIsDataLoss) {
  v1::GetBuildFileResponse message;
  message.mutable_extent()->set_offset(1);
  EXPECT_EQ(CodeOf(message.SerializeAsString()), absl::StatusCode::kDataLoss);
}

TEST(MessageDecoderTest, ZerosWithDataIsDataLoss) {
  v1::GetBuildFileResponse message = DataMessage("abc");
  message.mutable_extent()->set_zero_length(3);
  EXPECT_EQ(CodeOf(message.SerializeAsString()), absl::StatusCode::kDataLoss);
}

TEST(MessageDecoderTest, ExtentBeyondTheLastOffsetIsDataLoss) {
  v1::GetBuildFileResponse message;
  message.mutable_extent()->set_offset(UINT64_MAX - 1);
  message.mutable_extent()->set_zero_length(3);
  EXPECT_EQ(CodeOf(message.SerializeAsString()), absl::StatusCode::kDataLoss);
}

TEST(MessageDecoderTest, TwoExtentsAreDataLoss) {
  const std::string one = DataMessage("abc").SerializeAsString();
  EXPECT_EQ(CodeOf(one + one), absl::StatusCode::kDataLoss);
}

TEST(MessageDecoderTest, UnknownAvailabilityOrStateIsDataLoss) {
  v1::GetBuildFileResponse message;
  message.mutable_head()->set_availability(static_cast<v1::Availability>(77));
  EXPECT_EQ(CodeOf(message.SerializeAsString()), absl::StatusCode::kDataLoss);
  message.mutable_head()->set_availability(v1::AVAILABLE);
  message.mutable_head()->mutable_status()->set_state(static_cast<v1::BuildState>(77));
  EXPECT_EQ(CodeOf(message.SerializeAsString()), absl::StatusCode::kDataLoss);
}

TEST(MessageDecoderTest, VersionThatIsNoNumberIsDataLoss) {
  for (const char* version : {"x", "1x", "-1", "99999999999999999999999"}) {
    v1::GetBuildFileResponse message;
    message.mutable_head()->set_availability(v1::AVAILABLE);
    message.mutable_head()->set_version(version);
    EXPECT_EQ(CodeOf(message.SerializeAsString()), absl::StatusCode::kDataLoss) << version;
  }
}

TEST(MessageDecoderTest, RandomBytesNeverDoMoreThanFail) {
  std::mt19937 random(11);
  const std::string seed = DataMessage("0123456789").SerializeAsString();
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = seed;
    for (int flips = 1 + random() % 4; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    (void)MessageDecoder::Decode(Buffer(bytes, &random));
  }
}

}  // namespace
}  // namespace peerchunk
