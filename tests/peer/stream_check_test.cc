#include "peer/stream_check.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"

namespace peerchunk {
namespace {

using test::CodeOf;
constexpr absl::StatusCode kLoss = absl::StatusCode::kDataLoss;

// A message whose bytes live as long as it.
struct Built {
  std::string bytes;
  std::vector<std::string_view> pieces;
  PeerMessage message;
};

std::unique_ptr<Built> Data(uint64_t offset, std::string bytes) {
  auto built = std::make_unique<Built>();
  built->bytes = std::move(bytes);
  built->pieces = {std::string_view(built->bytes).substr(0, 1),
                   std::string_view(built->bytes).substr(1)};
  built->message.extent = PeerExtent{.offset = offset,
                                     .length = built->bytes.size(),
                                     .crc32c = Crc32c(built->bytes),
                                     .pieces = built->pieces};
  return built;
}

PeerMessage Head(uint64_t size, Availability availability = Availability::kAvailable) {
  return {.head = FileHead{.availability = availability, .total_size = size}};
}
PeerMessage Zeros(uint64_t offset, uint64_t length) {
  return {.extent = PeerExtent{.offset = offset, .length = length, .zero = true}};
}
PeerMessage Last(uint64_t next, bool short_of_end = false) {
  return {.last = true, .next_offset = next, .stopped_short = short_of_end};
}

TEST(StreamCheckTest, GoodStreamsPass) {
  StreamCheck check(10, std::nullopt);
  EXPECT_OK(check.Check(Head(2 * kMiB)));
  EXPECT_EQ(check.next_offset(), 10u);
  const auto data = Data(10, test::SampleBytes(1000, 1));
  EXPECT_OK(check.Check(data->message));
  EXPECT_EQ(check.next_offset(), 1010u);
  EXPECT_OK(check.Check(Zeros(1010, 2 * kMiB - 1010)));
  EXPECT_FALSE(check.finished());
  EXPECT_OK(check.Check(Last(2 * kMiB)));
  EXPECT_TRUE(check.finished());
  EXPECT_FALSE(check.stopped_short());
}

TEST(StreamCheckTest, HeadExtentAndEndMayShareAMessage) {
  StreamCheck check(0, std::nullopt);
  auto data = Data(0, "abc");
  data->message.head = Head(3).head;
  data->message.last = true;
  data->message.next_offset = 3;
  EXPECT_OK(check.Check(data->message));
  EXPECT_TRUE(check.finished());
}

TEST(StreamCheckTest, RangeIsCutAtTheEndWithoutOverflow) {
  for (const uint64_t length : {uint64_t{100}, UINT64_MAX, UINT64_MAX - 50}) {
    StreamCheck check(50, length);
    EXPECT_OK(check.Check(Head(120)));
    EXPECT_OK(check.Check(Zeros(50, 70)));
    EXPECT_OK(check.Check(Last(120)));
  }
}

TEST(StreamCheckTest, EmptyFileAndEmptyRangeAreLegal) {
  StreamCheck empty_file(0, std::nullopt);
  EXPECT_OK(empty_file.Check(Head(0)));
  EXPECT_OK(empty_file.Check(Last(0)));
  StreamCheck no_data(0, 0);
  EXPECT_OK(no_data.Check(Head(500)));
  EXPECT_OK(no_data.Check(Last(0)));
  EXPECT_TRUE(no_data.finished());
}

TEST(StreamCheckTest, StopAtAMissingBlockIsNoCut) {
  StreamCheck check(0, 100);
  EXPECT_OK(check.Check(Head(100)));
  EXPECT_OK(check.Check(Zeros(0, 60)));
  EXPECT_OK(check.Check(Last(60, true)));
  EXPECT_TRUE(check.stopped_short());
}

TEST(StreamCheckTest, OffsetBeyondTheEndIsSeen) {
  StreamCheck check(101, 5);
  EXPECT_OK(check.Check(Head(100)));
  EXPECT_TRUE(check.past_the_end());
}

TEST(StreamCheckTest, OtherAvailabilitiesCarryNoBytes) {
  for (const Availability availability : {Availability::kNotAvailable, Availability::kAbsent,
                                          Availability::kUseStorage, Availability::kNotYet}) {
    StreamCheck check(0, 10);
    PeerMessage message = Head(10, availability);
    message.last = true;
    EXPECT_OK(check.Check(message));
    StreamCheck with_bytes(0, 10);
    message.extent = Zeros(0, 10).extent;
    EXPECT_EQ(CodeOf(with_bytes.Check(message)), kLoss);
  }
}

TEST(StreamCheckTest, FirstMessageMustHaveTheHeadAndOnlyIt) {
  StreamCheck none(0, 10);
  EXPECT_EQ(CodeOf(none.Check(Zeros(0, 10))), kLoss);
  StreamCheck twice(0, 10);
  EXPECT_OK(twice.Check(Head(10)));
  EXPECT_EQ(CodeOf(twice.Check(Head(10))), kLoss);
}

// Each wrong extent in a stream of [100, 300) of a file of 1 MiB + 5, where 150 is due.
TEST(StreamCheckTest, EveryWrongExtentIsRefused) {
  const std::string good = test::SampleBytes(10, 3);
  struct Row {
    const char* name;
    std::function<void(Built&)> spoil;
  };
  const std::vector<Row> rows = {
      {"gap", [](Built& b) { b.message.extent->offset = 151; }},
      {"overlap", [](Built& b) { b.message.extent->offset = 149; }},
      {"seen before", [](Built& b) { b.message.extent->offset = 100; }},
      {"empty", [](Built& b) { b.message.extent->length = 0; }},
      {"empty zeros", [](Built& b) { b.message.extent = Zeros(150, 0).extent; }},
      {"zeros beyond the end", [](Built& b) { b.message.extent = Zeros(150, 151).extent; }},
      {"overflow", [](Built& b) { b.message.extent = Zeros(150, UINT64_MAX - 10).extent; }},
      {"longer than its bytes", [](Built& b) { b.message.extent->length = 11; }},
      {"shorter than its bytes", [](Built& b) { b.message.extent->length = 9; }},
      {"checksum", [](Built& b) { b.message.extent->crc32c ^= 1; }},
      {"flipped bit", [](Built& b) { b.bytes[5] ^= 1; }},
      {"pieces swapped", [](Built& b) { std::swap(b.pieces[0], b.pieces[1]); }},
      {"end in the wrong place",
       [](Built& b) { b.message.last = true, b.message.next_offset = 161; }},
      {"end too early", [](Built& b) { b.message.last = true, b.message.next_offset = 160; }},
      {"stop in the wrong place",
       [](Built& b) {
         b.message.last = b.message.stopped_short = true;
         b.message.next_offset = 300;
       }},
  };
  for (const Row& row : rows) {
    StreamCheck check(100, 200);
    ASSERT_OK(check.Check(Head(kMiB + 5)));
    ASSERT_OK(check.Check(Zeros(100, 50)));
    const auto built = Data(150, good);
    row.spoil(*built);
    EXPECT_EQ(CodeOf(check.Check(built->message)), kLoss) << row.name;
  }
}

TEST(StreamCheckTest, DataOverOneMebibyteIsRefused) {
  StreamCheck exact(0, std::nullopt);
  ASSERT_OK(exact.Check(Head(2 * kMiB)));
  EXPECT_OK(exact.Check(Data(0, std::string(kMiB, 'x'))->message));
  StreamCheck over(0, std::nullopt);
  ASSERT_OK(over.Check(Head(2 * kMiB)));
  EXPECT_EQ(CodeOf(over.Check(Data(0, std::string(kMiB + 1, 'x'))->message)), kLoss);
}

TEST(StreamCheckTest, NothingMayFollowTheLastMessage) {
  StreamCheck check(0, 0);
  ASSERT_OK(check.Check(Head(10)));
  ASSERT_OK(check.Check(Last(0)));
  EXPECT_EQ(CodeOf(check.Check(Last(0))), kLoss);
}

}  // namespace
}  // namespace peerchunk
