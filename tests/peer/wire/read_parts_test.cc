#include "peer/wire/read_parts.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/peer/chunk_service_client.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {
namespace {

MessageBytes Buffer(std::string bytes, size_t piece_bytes = 1 << 20) {
  const auto kept = std::make_shared<const std::string>(std::move(bytes));
  MessageBytes message{.pieces = {}, .owner = kept};
  for (size_t at = 0; at < kept->size(); at += piece_bytes) {
    message.pieces.push_back(std::string_view(*kept).substr(at, piece_bytes));
  }
  return message;
}

std::string Bytes(const MessageBytes& message) {
  std::string bytes;
  for (const std::string_view piece : message.pieces) bytes.append(piece);
  return bytes;
}

v1::ReadBuildFileResponse Sample() {
  v1::ReadBuildFileResponse response;
  v1::FileReadPart* part = response.add_parts();
  part->set_id(1ull << 60);
  part->mutable_message()->mutable_extent()->set_data(std::string(5000, 'd'));
  part = response.add_parts();
  part->set_id(2);
  part->mutable_error()->set_code(8);
  part->mutable_error()->set_message("busy");
  part->mutable_error()->set_retry_after_ms(70);
  part = response.add_parts();
  part->mutable_message();  // Empty, and of read 0.
  return response;
}

TEST(ReadPartsTest, ReadsWhatGeneratedCodeWritesHoweverItIsCut) {
  const v1::ReadBuildFileResponse sample = Sample();
  for (const size_t slice_bytes : {1, 2, 3, 7, 64, 4096, 1 << 20}) {
    const auto parts = DecodeReadParts(Buffer(sample.SerializeAsString(), slice_bytes));
    ASSERT_TRUE(parts.ok()) << parts.status();
    ASSERT_EQ(parts->size(), 3u);
    EXPECT_EQ((*parts)[0].id, 1ull << 60);
    EXPECT_EQ(Bytes((*parts)[0].message), sample.parts(0).message().SerializeAsString());
    EXPECT_EQ((*parts)[1].id, 2u);
    EXPECT_TRUE(absl::IsResourceExhausted((*parts)[1].error));
    EXPECT_EQ((*parts)[1].error.message(), "busy");
    EXPECT_EQ(RetryAfter((*parts)[1].error), absl::Milliseconds(70));
    EXPECT_TRUE((*parts)[2].error.ok());
    EXPECT_EQ(Bytes((*parts)[2].message), "");
  }
}

TEST(ReadPartsTest, CutAnywhereItIsDataLossOrFewerParts) {
  const std::string bytes = Sample().SerializeAsString();
  for (size_t length = 1; length < bytes.size(); ++length) {
    const auto parts = DecodeReadParts(Buffer(bytes.substr(0, length)));
    if (parts.ok()) {
      EXPECT_LT(parts->size(), 3u) << length;
    } else {
      EXPECT_TRUE(absl::IsDataLoss(parts.status())) << parts.status();
    }
  }
}

TEST(ReadPartsTest, APartWithNothingInItIsDataLoss) {
  v1::ReadBuildFileResponse response;
  response.add_parts()->set_id(3);
  EXPECT_TRUE(absl::IsDataLoss(DecodeReadParts(Buffer(response.SerializeAsString())).status()));
  response.mutable_parts(0)->mutable_error();  // Code 0: an error that is none.
  const auto parts = DecodeReadParts(Buffer(response.SerializeAsString()));
  ASSERT_TRUE(parts.ok());
  EXPECT_TRUE(absl::IsDataLoss(parts->at(0).error));
}

TEST(ReadPartsTest, RandomBytesNeverDoMoreThanFail) {
  std::mt19937 random(5);
  const std::string sample = Sample().SerializeAsString();
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = sample;
    for (int flips = 1 + random() % 8; flips > 0; --flips) bytes[random() % 60] = random();
    const auto parts = DecodeReadParts(Buffer(bytes, 1 + random() % 300));
    EXPECT_TRUE(parts.ok() || absl::IsDataLoss(parts.status())) << parts.status();
  }
}

TEST(ReadPartsTest, AnErrorsTextIsCutAndNothingIsKeptForIt) {
  v1::ReadBuildFileResponse response;
  response.add_parts()->mutable_error()->set_code(14);
  response.mutable_parts(0)->mutable_error()->set_message("\"\n" + std::string(1 << 20, 'x'));
  MessageBytes message = Buffer(response.SerializeAsString());
  const std::weak_ptr<const void> kept = message.owner;
  const auto parts = DecodeReadParts(message);
  message = {};
  ASSERT_TRUE(parts.ok());
  EXPECT_EQ(parts->at(0).error.message(), "??" + std::string(1022, 'x'));
  EXPECT_TRUE(kept.expired());
}

TEST(ReadPartsTest, MorePartsThanThereAreReadsIsDataLoss) {
  v1::ReadBuildFileResponse response;
  for (int i = 0; i < 10'000; ++i) response.add_parts()->mutable_message();
  EXPECT_TRUE(absl::IsDataLoss(DecodeReadParts(Buffer(response.SerializeAsString())).status()));
}

// A message of `bytes` of which the first part has `part_bytes` of data; the rest is another's.
MessageBytes MessageWithPart(size_t bytes, size_t part_bytes) {
  v1::ReadBuildFileResponse response;
  for (const size_t size : {part_bytes, bytes - part_bytes}) {
    response.add_parts()->mutable_message()->mutable_extent()->set_data(std::string(size, 'p'));
  }
  return Buffer(response.SerializeAsString());
}

// However little of each message is a read's, and however many reads there are.
TEST(ReadPartDecoderTest, PartsKeepLittleMoreThanTheyAre) {
  ReadPartDecoder decoder;
  std::vector<std::weak_ptr<const void>> messages;
  std::vector<ReadPart> parts;
  for (int i = 0; i < 50; ++i) {
    MessageBytes message = MessageWithPart(kMiB, 1);
    messages.push_back(message.owner);
    auto decoded = decoder.Decode(std::move(message));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    parts.push_back(std::move(decoded->at(0)));
  }
  const auto kept = [&] {
    return std::count_if(messages.begin(), messages.end(),
                         [](const auto& message) { return !message.expired(); });
  };
  EXPECT_LE(static_cast<size_t>(kept()), ReadPartDecoder::kMostKeptBytes / kMiB);
  EXPECT_GE(kept(), 5);
  for (const ReadPart& part : parts) EXPECT_EQ(Bytes(part.message), Bytes(parts[0].message));
  // What fills its message stays where it is.
  MessageBytes large = MessageWithPart(kMiB, kMiB / 2);
  const char* const begin = large.pieces[0].data();
  const char* const end = begin + large.pieces[0].size();
  const auto in_place = decoder.Decode(std::move(large));
  const char* const at = in_place->at(0).message.pieces[0].data();
  EXPECT_TRUE(at >= begin && at < end);
  // Once they are gone, so are the messages, and others are kept again.
  parts.clear();
  EXPECT_EQ(kept(), 0);
  MessageBytes next = MessageWithPart(kMiB, 1);
  const std::weak_ptr<const void> owner = next.owner;
  const auto last = decoder.Decode(std::move(next));
  EXPECT_FALSE(owner.expired());
}

ReadPart PartOf(std::string bytes) {
  ReadPart part;
  part.message = Buffer(std::move(bytes));
  return part;
}

TEST(WaitingPartsTest, AsMuchAsIsAskedForWaitsAndNoMore) {
  WaitingParts parts;
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(parts.Add(PartOf(std::string(4096, 'x'))), absl::OkStatus());
  }
  absl::Status full;
  size_t more = 0;
  while ((full = parts.Add(PartOf("x"))).ok()) ++more;
  EXPECT_TRUE(absl::IsDataLoss(full));
  EXPECT_LT(more, 2000u) << "a part is more than its bytes";
  while (!parts.empty()) parts.Take();
  EXPECT_EQ(parts.Add(PartOf("x")), absl::OkStatus());
}

TEST(WaitingPartsTest, NothingComesBehindAnError) {
  WaitingParts parts;
  ReadPart error;
  error.error = absl::UnavailableError("gone");
  for (int i = 0; i < 10'000; ++i) EXPECT_EQ(parts.Add(error), absl::OkStatus());
  EXPECT_EQ(parts.Add(PartOf("x")), absl::OkStatus());
  EXPECT_TRUE(absl::IsUnavailable(parts.Take().error));
  EXPECT_TRUE(parts.empty());
}

}  // namespace
}  // namespace peerchunk
