#include "peer/wire/in_order_placement.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "peer/wire/message_decoder.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {
namespace {

constexpr uint64_t kBegin = 4096;  // Of what is asked for.

v1::GetBuildFileResponse DataMessage(uint64_t offset, size_t bytes, char fill = 'x') {
  v1::GetBuildFileResponse message;
  message.mutable_extent()->set_offset(offset);
  message.mutable_extent()->set_crc32c(7);
  message.mutable_extent()->set_data(std::string(bytes, fill));
  return message;
}

v1::GetBuildFileResponse ZeroMessage(uint64_t offset, uint64_t bytes) {
  v1::GetBuildFileResponse message;
  message.mutable_extent()->set_offset(offset);
  message.mutable_extent()->set_zero_length(bytes);
  return message;
}

v1::GetBuildFileResponse WithHead(v1::GetBuildFileResponse message) {
  message.mutable_head()->set_availability(v1::AVAILABLE);
  message.mutable_head()->set_total_size(1 << 20);
  message.set_last(true);
  message.set_next_offset(9);
  return message;
}

class InOrderPlacementTest : public testing::Test {
 protected:
  absl::Span<char> Place(const std::string& bytes) {
    return placement_.Place(
        std::string_view(bytes).substr(0, std::min(bytes.size(), InOrderPlacement::kHeadBytes)),
        bytes.size());
  }
  absl::Span<char> Place(const v1::GetBuildFileResponse& message) {
    return Place(message.SerializeAsString());
  }
  void ExpectPlaced(absl::Span<char> place, uint64_t offset, size_t bytes) {
    EXPECT_EQ(place.data(), memory_.data() + (offset - kBegin));
    EXPECT_EQ(place.size(), bytes);
  }
  // Messages that would be placed are not any more.
  void ExpectGivenUp() {
    for (uint64_t at = kBegin; at < kBegin + memory_.size(); at += 100) {
      EXPECT_TRUE(Place(DataMessage(at, 100)).empty());
    }
  }

  std::string memory_ = std::string(20'000, '\0');
  InOrderPlacement placement_{kBegin, absl::MakeSpan(memory_)};
};

TEST_F(InOrderPlacementTest, DataGoToTheirOffsetOneAfterTheOther) {
  ExpectPlaced(Place(WithHead(DataMessage(kBegin, 10'000))), kBegin, 10'000);
  ExpectPlaced(Place(DataMessage(kBegin + 10'000, 100)), kBegin + 10'000, 100);
  EXPECT_TRUE(Place(ZeroMessage(kBegin + 10'100, 5'000)).empty());
  ExpectPlaced(Place(WithHead(DataMessage(kBegin + 15'100, 4'900))), kBegin + 15'100, 4'900);
}

TEST_F(InOrderPlacementTest, AMessageWithoutAnExtentChangesNothing) {
  EXPECT_TRUE(Place(WithHead({})).empty());
  ExpectPlaced(Place(DataMessage(kBegin, 100)), kBegin, 100);
}

TEST_F(InOrderPlacementTest, WhatWasPlacedOrPassedOverIsNeverPlacedAgain) {
  ExpectPlaced(Place(DataMessage(kBegin, 100)), kBegin, 100);
  EXPECT_TRUE(Place(DataMessage(kBegin, 100)).empty());
  ExpectGivenUp();
}

TEST_F(InOrderPlacementTest, WhatIsOutOfOrderOrDoesNotFitIsNotPlacedNorAnythingAfterIt) {
  const std::vector<v1::GetBuildFileResponse> wrong = {
      DataMessage(kBegin + 1, 100), DataMessage(kBegin - 1, 100), DataMessage(0, 100),
      DataMessage(kBegin, 20'001),  ZeroMessage(kBegin, 20'001),  ZeroMessage(kBegin, UINT64_MAX),
      ZeroMessage(kBegin + 1, 100)};
  for (const v1::GetBuildFileResponse& message : wrong) {
    placement_ = InOrderPlacement(kBegin, absl::MakeSpan(memory_));
    EXPECT_TRUE(Place(message).empty());
    ExpectGivenUp();
  }
}

// Correct peers of a later version may send them; what they mean, only the decoder says.
TEST_F(InOrderPlacementTest, UnusualMessagesAreNotPlacedNorAnythingAfterThem) {
  const std::string plain = DataMessage(kBegin, 100).SerializeAsString();
  const std::string extent = DataMessage(kBegin, 100).extent().SerializeAsString();
  const auto in_message = [](const std::string& bytes) {
    std::string message("\x7a", 1);
    message.push_back(static_cast<char>(0x80 | (bytes.size() & 0x7f)));
    message.push_back(static_cast<char>(bytes.size() >> 7));
    return message + bytes;
  };
  v1::GetBuildFileResponse both = DataMessage(kBegin, 100);
  both.mutable_extent()->set_zero_length(100);
  v1::GetBuildFileResponse long_head = WithHead(DataMessage(kBegin, 100));
  long_head.mutable_head()->set_version(std::string(InOrderPlacement::kHeadBytes, '1'));
  const std::string field_of_later = std::string("\xf8\x06\x05", 3);
  const std::vector<std::string> unusual = {
      "",
      std::string("\x08", 1),                           // Cut within a field.
      plain + plain,                                    // Two extents.
      plain + field_of_later,                           // Something behind the extent.
      in_message(extent + field_of_later),              // Or behind the data.
      in_message(std::string("\x50\x05", 2) + extent),  // Or out of the order of numbers.
      in_message(std::string("\x08\x01", 2) + extent),  // The offset twice.
      in_message(extent.substr(0, 3)),                  // An extent of nothing.
      both.SerializeAsString(),
      long_head.SerializeAsString(),
  };
  for (const std::string& bytes : unusual) {
    placement_ = InOrderPlacement(kBegin, absl::MakeSpan(memory_));
    EXPECT_TRUE(Place(bytes).empty());
    ExpectGivenUp();
  }
  placement_ = InOrderPlacement(kBegin, absl::MakeSpan(memory_));
  ExpectPlaced(Place(in_message(extent)), kBegin, 100);
}

// Whatever a peer sends, what is placed is what the decoder takes it for.
TEST_F(InOrderPlacementTest, NeverPlacesWhatTheDecoderReadsInAnotherWay) {
  std::mt19937 random(5);
  const std::vector<std::string> seeds = {
      WithHead(DataMessage(kBegin, 40)).SerializeAsString(),
      DataMessage(kBegin, 700).SerializeAsString(),
      ZeroMessage(kBegin, 40).SerializeAsString(),
      WithHead({}).SerializeAsString(),
  };
  int placed = 0;
  int agreed = 0;
  for (int round = 0; round < 40'000; ++round) {
    std::string bytes = seeds[random() % seeds.size()];
    for (int flips = static_cast<int>(random() % 4); flips > 0; --flips) {
      const size_t at = random() % std::min<size_t>(bytes.size(), 40);
      if (random() % 3 == 0) {
        bytes.insert(at, 1, static_cast<char>(random()));
      } else {
        bytes[at] = static_cast<char>(random());
      }
    }
    placement_ = InOrderPlacement(kBegin, absl::MakeSpan(memory_));
    const absl::Span<char> place = Place(bytes);
    const auto owner = std::make_shared<const std::string>(bytes);
    const auto decoded = MessageDecoder::Decode({.pieces = {*owner}, .owner = owner});
    if (!decoded.ok()) continue;
    const std::optional<PeerExtent>& extent = decoded->message().extent;
    if (!place.empty()) {
      ++placed;
      ASSERT_TRUE(extent && !extent->zero) << round;
      ASSERT_EQ(extent->offset, kBegin) << round;
      ASSERT_EQ(extent->length, place.size()) << round;
      ASSERT_EQ(extent->pieces[0].data() + place.size(), owner->data() + owner->size()) << round;
    }
    // The next one goes where the decoder says that this one ends, or nowhere.
    const uint64_t next = kBegin + (extent ? extent->length : 0);
    for (const uint64_t at : {kBegin, kBegin + 40, kBegin + 700, next}) {
      InOrderPlacement copy = placement_;
      const std::string message = DataMessage(at, 10).SerializeAsString();
      const bool follows = !copy.Place(message, message.size()).empty();
      if (!follows) continue;
      ++agreed;
      ASSERT_EQ(at, next) << round;
      ASSERT_TRUE(!extent || extent->offset == kBegin) << round;
    }
  }
  EXPECT_GT(placed, 5'000);
  EXPECT_GT(agreed, 10'000);
}

}  // namespace
}  // namespace peerchunk
