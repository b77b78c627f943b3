#include "service/read_request.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {

size_t CountEntries(google::protobuf::io::ZeroCopyInputStream& bytes) {
  using google::protobuf::internal::WireFormatLite;
  google::protobuf::io::CodedInputStream in(&bytes);
  size_t count = 0;
  while (const uint32_t tag = in.ReadTag()) {
    const bool packed =
        tag == WireFormatLite::MakeTag(v1::ReadBuildFileRequest::kCancelledFieldNumber,
                                       WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
    // Counted before it is known to be whole: a parser takes what is there of it.
    if (!packed) {
      ++count;
      if (!WireFormatLite::SkipField(&in, tag)) break;
      continue;
    }
    uint32_t length = 0;
    if (!in.ReadVarint32(&length)) break;
    count += length;  // At least a byte each.
    if (!in.Skip(static_cast<int>(length))) break;
  }
  return count;
}

}  // namespace peerchunk
