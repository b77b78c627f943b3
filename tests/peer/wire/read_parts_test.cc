#include "peer/wire/read_parts.h"

#include <memory>
#include <random>
#include <string>
#include <utility>

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

}  // namespace
}  // namespace peerchunk
