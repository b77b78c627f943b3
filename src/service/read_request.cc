#include "service/read_request.h"

#include <cstdint>

#include <absl/status/statusor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include "base/chunk_service_limits.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// A longer message is none of a reader's: of a read 5 bytes are the least.
constexpr size_t kMostReadsParsed = 16 * kMostReadsUnderWay;

// How many entries a request has, before anything is allocated for them.
absl::StatusOr<size_t> CountEntries(grpc::ByteBuffer& buffer) {
  using google::protobuf::internal::WireFormatLite;
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return absl::InvalidArgumentError("unreadable request");
  google::protobuf::io::CodedInputStream in(&reader);
  size_t count = 0;
  while (const uint32_t tag = in.ReadTag()) {
    uint64_t entries = 1;
    const bool packed =
        tag == WireFormatLite::MakeTag(v1::ReadBuildFileRequest::kCancelledFieldNumber,
                                       WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
    uint32_t length = 0;
    if (packed) {
      if (!in.ReadVarint32(&length) || !in.Skip(static_cast<int>(length))) break;
      entries = length;  // At least a byte each.
    } else if (!WireFormatLite::SkipField(&in, tag)) {
      break;
    }
    count += entries;
  }
  return count;
}

}  // namespace

absl::Status ParseReadRequest(grpc::ByteBuffer& buffer, v1::ReadBuildFileRequest& request) {
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t entries, CountEntries(buffer));
  if (entries > kMostReadsParsed) {
    return absl::InvalidArgumentError("a request of more reads than a stream may have under way");
  }
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return absl::InvalidArgumentError("unreadable request");
  if (!request.ParseFromZeroCopyStream(&reader)) {
    return absl::InvalidArgumentError("malformed request");
  }
  return absl::OkStatus();
}

}  // namespace peerchunk
