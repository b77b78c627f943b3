#include "service/framing.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "peer/wire/message_decoder.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {
namespace {

std::string Bytes(const FramedMessage& message) {
  const grpc::ByteBuffer buffer = message.ToByteBuffer();
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

absl::StatusOr<MessageDecoder> Decode(const FramedMessage& message) {
  const auto kept = std::make_shared<const std::string>(Bytes(message));
  return MessageDecoder::Decode({.pieces = {*kept}, .owner = kept});
}

FileHead SomeHead() {
  FileHead head;
  head.availability = Availability::kAvailable;
  head.status = {BuildState::kUploading, 0x1234567890abcdef, 17};
  head.total_size = 1'000'000'007;
  head.file_crc32c = 0;  // Present although it is 0.
  head.version = 3;
  head.in_base = true;
  head.retry_after = absl::Milliseconds(250);
  return head;
}

TEST(FramingTest, GeneratedCodeReadsWhatIsFramedByHand) {
  const std::string data = "some bytes of a memfile";
  const FramedMessage framed = FrameMessage(
      SomeHead(),
      OutgoingExtent{
          .offset = 4096, .zero_length = 0, .crc32c = Crc32c(data), .data = grpc::Slice(data)},
      OutgoingEnd{{BuildState::kDurable, 5, 18}, 4096 + data.size(), true});
  v1::GetBuildFileResponse message;
  ASSERT_TRUE(message.ParseFromString(Bytes(framed)));
  EXPECT_EQ(message.head().availability(), v1::AVAILABLE);
  EXPECT_EQ(message.head().total_size(), 1'000'000'007);
  EXPECT_TRUE(message.head().has_file_crc32c());
  EXPECT_EQ(message.head().version(), "3");
  EXPECT_EQ(message.extent().offset(), 4096);
  EXPECT_EQ(message.extent().data(), data);
  EXPECT_EQ(message.extent().crc32c(), Crc32c(data));
  EXPECT_TRUE(message.last());
  EXPECT_EQ(message.status().state(), v1::DURABLE);
  EXPECT_EQ(message.next_offset(), 4096 + data.size());
  EXPECT_EQ(message.end(), v1::NOT_AVAILABLE);
  // And byte for byte: nothing but field order could differ, and that is the generated code's own.
  EXPECT_EQ(message.SerializeAsString(), Bytes(framed));
}

TEST(FramingTest, DecoderReadsWhatIsFramedByHand) {
  const std::string data(1024 * 1024, 'x');
  const auto decoded = Decode(FrameMessage(
      SomeHead(),
      OutgoingExtent{
          .offset = 7, .zero_length = 0, .crc32c = Crc32c(data), .data = grpc::Slice(data)},
      OutgoingEnd{{BuildState::kFailed, 5, 18}, 99, false}));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const PeerMessage& message = decoded->message();
  ASSERT_TRUE(message.head.has_value());
  EXPECT_EQ(message.head->status, SomeHead().status);
  EXPECT_EQ(message.head->total_size, SomeHead().total_size);
  EXPECT_EQ(message.head->file_crc32c, SomeHead().file_crc32c);
  EXPECT_EQ(message.head->version, 3);
  EXPECT_TRUE(message.head->in_base);
  EXPECT_EQ(message.head->retry_after, absl::Milliseconds(250));
  ASSERT_TRUE(message.extent.has_value());
  EXPECT_EQ(message.extent->offset, 7);
  EXPECT_EQ(message.extent->length, data.size());
  EXPECT_EQ(message.extent->crc32c, Crc32c(data));
  std::string got;
  for (std::string_view piece : message.extent->pieces) got.append(piece);
  EXPECT_EQ(got, data);
  EXPECT_TRUE(message.last);
  EXPECT_EQ(message.status, (BuildStatus{BuildState::kFailed, 5, 18}));
  EXPECT_EQ(message.next_offset, 99);
  EXPECT_FALSE(message.stopped_short);
}

TEST(FramingTest, ZeroRunCarriesNoData) {
  const FramedMessage framed = FrameMessage(
      std::nullopt,
      OutgoingExtent{.offset = 1 << 20, .zero_length = 1ull << 40, .crc32c = 0, .data = {}},
      std::nullopt);
  EXPECT_LT(framed.size(), 32);
  const auto decoded = Decode(framed);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ASSERT_TRUE(decoded->message().extent.has_value());
  EXPECT_TRUE(decoded->message().extent->zero);
  EXPECT_EQ(decoded->message().extent->length, 1ull << 40);
  EXPECT_FALSE(decoded->message().head.has_value());
  EXPECT_FALSE(decoded->message().last);
}

TEST(FramingTest, WholeAnswersAreTheSameBytesAsParts) {
  for (const uint64_t id : {uint64_t{0}, uint64_t{1}, UINT64_MAX}) {
    for (const uint64_t offset : {uint64_t{0}, uint64_t{4096}, uint64_t{1} << 63}) {
      for (const uint64_t length : {0, 1, 4096, 65536}) {
        for (const uint32_t crc : {0u, 0x89abcdefu}) {
          for (const bool zero : {false, true}) {
            const std::string data(zero ? 0 : length, 'x');
            std::optional<OutgoingExtent> extent;
            if (length > 0) {
              extent.emplace(OutgoingExtent{.offset = offset,
                                            .zero_length = zero ? length : 0,
                                            .crc32c = zero ? 0 : crc,
                                            .data = {}});
              if (!zero) extent->data = grpc::Slice(data);
            }
            const std::string expected = Bytes(FramePart(
                id, FrameMessage(SomeHead(), extent,
                                 OutgoingEnd{SomeHead().status, offset + length, false})));
            const WholeAnswerFramer framer(SomeHead());
            std::string got(framer.MostBytes(), '?');
            auto* const begin = reinterpret_cast<uint8_t*>(got.data());
            const auto written = static_cast<size_t>(
                framer.Write(id, offset, zero ? length : 0, crc, data.size(), begin) - begin);
            ASSERT_LE(written, framer.MostBytes());
            got.resize(written);
            v1::ReadBuildFileResponse parsed;
            ASSERT_TRUE(parsed.ParseFromString(expected));
            ASSERT_EQ(parsed.SerializeAsString(), expected);
            ASSERT_EQ(got + data, expected);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace peerchunk
