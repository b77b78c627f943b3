#pragma once

#include <cstdint>
#include <optional>

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include "peerchunk/base/file_head.h"

namespace peerchunk {

// A run of a file on its way out: zeros, or `data` whose CRC32C is `crc32c`.
struct OutgoingExtent {
  uint64_t offset = 0;
  uint64_t zero_length = 0;
  uint32_t crc32c = 0;
  std::optional<grpc::Slice> data;  // At most 1 MiB.
};

// The end of a stream.
struct OutgoingEnd {
  BuildStatus status;
  uint64_t next_offset = 0;
  bool stopped_short = false;  // At a block that is not present here.
};

// One GetBuildFileResponse as gRPC sends it: the generated code writes everything but the data,
// which follows as a slice of its own, without a copy. That is valid protobuf because `extent` and,
// in it, `data` are the last fields.
grpc::ByteBuffer FrameMessage(const std::optional<FileHead>& head,
                              const std::optional<OutgoingExtent>& extent,
                              const std::optional<OutgoingEnd>& end);

}  // namespace peerchunk
