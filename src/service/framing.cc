#include "service/framing.h"

#include <string>
#include <vector>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>

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

grpc::ByteBuffer FrameMessage(const std::optional<FileHead>& head,
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
  std::vector<grpc::Slice> slices;
  slices.emplace_back(prefix);
  if (extent && extent->data) slices.push_back(*extent->data);
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace peerchunk
