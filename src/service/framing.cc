#include "service/framing.h"

#include <cstring>
#include <string>
#include <utility>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "base/grpc_status.h"
#include "peerchunk/v1/chunk_service.pb.h"
#include "service/wire.h"

namespace peerchunk {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

constexpr uint32_t Tag(int field, WireFormatLite::WireType type) {
  return WireFormatLite::MakeTag(field, type);
}
constexpr uint32_t BytesTag(int field) {
  return Tag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

// All tags here are one byte: fields 1 to 15.
constexpr size_t kTagBytes = 1;
constexpr size_t kMostVarintBytes = 10;
// Of an extent's fields and tags, and of the tag and length around it.
constexpr size_t kMostExtentBytes = 5 * kTagBytes + 4 * kMostVarintBytes + sizeof(uint32_t);

uint8_t* WriteTag(uint32_t tag, uint8_t* out) {
  *out = static_cast<uint8_t>(tag);
  return out + 1;
}

uint8_t* WriteVarintField(int field, uint64_t value, uint8_t* out) {
  out = WriteTag(Tag(field, WireFormatLite::WIRETYPE_VARINT), out);
  return CodedOutputStream::WriteVarint64ToArray(value, out);
}

size_t VarintFieldSize(uint64_t value) {
  return kTagBytes + CodedOutputStream::VarintSize64(value);
}

// The length of an Extent, in the generated code's order and with its rule that a 0 is not written.
size_t ExtentSize(uint64_t offset, uint64_t zero_length, uint32_t crc32c, bool has_data,
                  uint64_t data_length) {
  size_t size = 0;
  if (offset != 0) size += VarintFieldSize(offset);
  if (zero_length != 0) size += VarintFieldSize(zero_length);
  if (has_data) {
    if (crc32c != 0) size += kTagBytes + sizeof crc32c;
    size += VarintFieldSize(data_length) + data_length;
  }
  return size;
}

// The `extent` field of a message of which `size` is what ExtentSize says, up to its data.
uint8_t* WriteExtent(size_t size, uint64_t offset, uint64_t zero_length, uint32_t crc32c,
                     bool has_data, uint64_t data_length, uint8_t* out) {
  out = WriteTag(BytesTag(v1::GetBuildFileResponse::kExtentFieldNumber), out);
  out = CodedOutputStream::WriteVarint64ToArray(size, out);
  if (offset != 0) out = WriteVarintField(v1::Extent::kOffsetFieldNumber, offset, out);
  if (zero_length != 0) {
    out = WriteVarintField(v1::Extent::kZeroLengthFieldNumber, zero_length, out);
  }
  if (!has_data) return out;
  if (crc32c != 0) {
    out = WriteTag(Tag(v1::Extent::kCrc32CFieldNumber, WireFormatLite::WIRETYPE_FIXED32), out);
    out = CodedOutputStream::WriteLittleEndian32ToArray(crc32c, out);
  }
  out = WriteTag(BytesTag(v1::Extent::kDataFieldNumber), out);
  return CodedOutputStream::WriteVarint64ToArray(data_length, out);
}

uint8_t* WriteRaw(std::string_view bytes, uint8_t* out) {
  std::memcpy(out, bytes.data(), bytes.size());
  return out + bytes.size();
}

size_t PartBodySize(uint64_t id, size_t message_size) {
  return (id != 0 ? VarintFieldSize(id) : 0) + VarintFieldSize(message_size) + message_size;
}

// A part up to where its message begins.
uint8_t* WritePartHead(uint64_t id, size_t message_size, uint8_t* out) {
  out = WriteTag(BytesTag(v1::ReadBuildFileResponse::kPartsFieldNumber), out);
  out = CodedOutputStream::WriteVarint64ToArray(PartBodySize(id, message_size), out);
  if (id != 0) out = WriteVarintField(v1::FileReadPart::kIdFieldNumber, id, out);
  out = WriteTag(BytesTag(v1::FileReadPart::kMessageFieldNumber), out);
  return CodedOutputStream::WriteVarint64ToArray(message_size, out);
}

std::string HeadAndEnd(const std::optional<FileHead>& head, const std::optional<OutgoingEnd>& end) {
  if (!head && !end) return {};
  v1::GetBuildFileResponse message;
  if (head) HeadToWire(*head, message.mutable_head());
  if (end) {
    message.set_last(true);
    StatusToWire(end->status, message.mutable_status());
    message.set_next_offset(end->next_offset);
    if (end->stopped_short) message.set_end(v1::NOT_AVAILABLE);
  }
  return message.SerializeAsString();
}

}  // namespace

FramedMessage FrameMessage(const std::optional<FileHead>& head,
                           const std::optional<OutgoingExtent>& extent,
                           const std::optional<OutgoingEnd>& end) {
  const std::string fields = HeadAndEnd(head, end);
  if (!extent) return {.prefix = grpc::Slice(fields), .data = std::nullopt};
  const bool has_data = extent->data.has_value();
  const uint64_t data_length = has_data ? extent->data->size() : 0;
  const size_t size =
      ExtentSize(extent->offset, extent->zero_length, extent->crc32c, has_data, data_length);
  uint8_t bytes[kMostExtentBytes];
  const uint8_t* const end_of_extent = WriteExtent(size, extent->offset, extent->zero_length,
                                                   extent->crc32c, has_data, data_length, bytes);
  const auto extent_length = static_cast<size_t>(end_of_extent - bytes);
  if (fields.empty()) return {.prefix = grpc::Slice(bytes, extent_length), .data = extent->data};
  grpc::Slice prefix(fields.size() + extent_length);
  auto* const out = const_cast<uint8_t*>(prefix.begin());
  std::memcpy(WriteRaw(fields, out), bytes, extent_length);
  return {.prefix = std::move(prefix), .data = extent->data};
}

grpc::ByteBuffer FramedMessage::ToByteBuffer() const {
  const grpc::Slice slices[] = {prefix, data ? *data : grpc::Slice()};
  return grpc::ByteBuffer(slices, data ? 2 : 1);
}

FramedMessage FramePart(uint64_t id, const FramedMessage& message) {
  uint8_t bytes[2 * kTagBytes + 4 * kMostVarintBytes];
  const uint8_t* const end = WritePartHead(id, message.size(), bytes);
  const auto length = static_cast<size_t>(end - bytes);
  grpc::Slice prefix(length + message.prefix.size());
  auto* const out = const_cast<uint8_t*>(prefix.begin());
  std::memcpy(out, bytes, length);
  std::memcpy(out + length, message.prefix.begin(), message.prefix.size());
  return {.prefix = std::move(prefix), .data = message.data};
}

FramedMessage FramePartError(uint64_t id, const absl::Status& error, absl::Duration retry_after) {
  v1::ReadBuildFileResponse response;
  v1::FileReadPart* const part = response.add_parts();
  part->set_id(id);
  part->mutable_error()->set_code(static_cast<int>(error.code()));
  part->mutable_error()->set_message(ToGrpcStatus(error).error_message());
  part->mutable_error()->set_retry_after_ms(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(retry_after)));
  return {.prefix = grpc::Slice(response.SerializeAsString()), .data = std::nullopt};
}

WholeAnswerFramer::WholeAnswerFramer(const FileHead& head) {
  v1::GetBuildFileResponse message;
  HeadToWire(head, message.mutable_head());
  head_ = message.SerializeAsString();
  message.Clear();
  message.set_last(true);
  StatusToWire(head.status, message.mutable_status());
  status_ = message.SerializeAsString();
}

uint8_t* WholeAnswerFramer::Write(uint64_t id, uint64_t offset, uint64_t zero_length,
                                  uint32_t crc32c, uint64_t data_length, uint8_t* out) const {
  const bool has_data = data_length > 0;
  const bool has_extent = has_data || zero_length > 0;
  const uint64_t next_offset = offset + zero_length + data_length;
  const size_t extent = ExtentSize(offset, zero_length, crc32c, has_data, data_length);
  size_t size = head_.size() + status_.size();
  if (next_offset != 0) size += VarintFieldSize(next_offset);
  if (has_extent) size += VarintFieldSize(extent) + extent;
  out = WritePartHead(id, size, out);
  out = WriteRaw(status_, WriteRaw(head_, out));
  if (next_offset != 0) {
    out = WriteVarintField(v1::GetBuildFileResponse::kNextOffsetFieldNumber, next_offset, out);
  }
  if (!has_extent) return out;
  return WriteExtent(extent, offset, zero_length, crc32c, has_data, data_length, out);
}

}  // namespace peerchunk
