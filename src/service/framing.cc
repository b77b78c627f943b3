#include "service/framing.h"

#include <string>
#include <utility>
#include <vector>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>

#include "base/grpc_status.h"
#include "peerchunk/v1/chunk_service.pb.h"
#include "service/wire.h"

namespace peerchunk {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

constexpr uint32_t BytesTag(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

}  // namespace

FramedMessage FrameMessage(const std::optional<FileHead>& head,
                           const std::optional<OutgoingExtent>& extent,
                           const std::optional<OutgoingEnd>& end) {
  v1::GetBuildFileResponse message;
  if (head) HeadToWire(*head, message.mutable_head());
  if (end) {
    message.set_last(true);
    StatusToWire(end->status, message.mutable_status());
    message.set_next_offset(end->next_offset);
    if (end->stopped_short) message.set_end(v1::NOT_AVAILABLE);
  }
  std::string prefix = message.SerializeAsString();
  if (extent) {
    v1::Extent fields;
    fields.set_offset(extent->offset);
    fields.set_zero_length(extent->zero_length);
    if (extent->data) fields.set_crc32c(extent->crc32c);
    const std::string body = fields.SerializeAsString();
    const size_t data_size = extent->data ? extent->data->size() : 0;
    const uint32_t data_tag = BytesTag(v1::Extent::kDataFieldNumber);
    const size_t data_field_size = extent->data
                                       ? CodedOutputStream::VarintSize32(data_tag) +
                                             CodedOutputStream::VarintSize64(data_size) + data_size
                                       : 0;
    google::protobuf::io::StringOutputStream stream(&prefix);
    CodedOutputStream out(&stream);
    out.WriteTag(BytesTag(v1::GetBuildFileResponse::kExtentFieldNumber));
    out.WriteVarint64(body.size() + data_field_size);
    out.WriteString(body);
    if (extent->data) {
      out.WriteTag(data_tag);
      out.WriteVarint64(data_size);
    }
  }
  return {.prefix = std::move(prefix), .data = extent ? extent->data : std::nullopt};
}

grpc::ByteBuffer FramedMessage::ToByteBuffer() const {
  std::vector<grpc::Slice> slices;
  slices.emplace_back(prefix);
  if (data) slices.push_back(*data);
  return grpc::ByteBuffer(slices.data(), slices.size());
}

FramedMessage FramePart(uint64_t id, FramedMessage message) {
  v1::FileReadPart fields;
  fields.set_id(id);
  const std::string body = fields.SerializeAsString();
  const uint32_t message_tag = BytesTag(v1::FileReadPart::kMessageFieldNumber);
  FramedMessage part{.prefix = {}, .data = std::move(message.data)};
  const size_t data_size = part.data ? part.data->size() : 0;
  const size_t message_size = message.prefix.size() + data_size;
  {
    google::protobuf::io::StringOutputStream stream(&part.prefix);
    CodedOutputStream out(&stream);
    out.WriteTag(BytesTag(v1::ReadBuildFileResponse::kPartsFieldNumber));
    out.WriteVarint64(body.size() + CodedOutputStream::VarintSize32(message_tag) +
                      CodedOutputStream::VarintSize64(message_size) + message_size);
    out.WriteString(body);
    out.WriteTag(message_tag);
    out.WriteVarint64(message_size);
  }
  part.prefix += message.prefix;
  return part;
}

FramedMessage FramePartError(uint64_t id, const absl::Status& error, absl::Duration retry_after) {
  v1::ReadBuildFileResponse response;
  v1::FileReadPart* const part = response.add_parts();
  part->set_id(id);
  part->mutable_error()->set_code(static_cast<int>(error.code()));
  part->mutable_error()->set_message(ToGrpcStatus(error).error_message());
  part->mutable_error()->set_retry_after_ms(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(retry_after)));
  return {.prefix = response.SerializeAsString(), .data = std::nullopt};
}

}  // namespace peerchunk
