#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <absl/status/status.h>
#include <absl/time/time.h>
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

// A message ready for gRPC: the generated code wrote everything but the data, which follows as a
// slice of its own, without a copy. That is valid protobuf because `extent` and, in it, `data` are
// the last fields, and so is whatever a part wraps.
struct FramedMessage {
  std::string prefix;
  std::optional<grpc::Slice> data;

  size_t size() const { return prefix.size() + (data ? data->size() : 0); }
  grpc::ByteBuffer ToByteBuffer() const;
};

// One GetBuildFileResponse.
FramedMessage FrameMessage(const std::optional<FileHead>& head,
                           const std::optional<OutgoingExtent>& extent,
                           const std::optional<OutgoingEnd>& end);

// One part of a ReadBuildFileResponse: of read `id`, the given GetBuildFileResponse. Parts one
// after the other make up a message.
FramedMessage FramePart(uint64_t id, FramedMessage message);
FramedMessage FramePartError(uint64_t id, const absl::Status& error, absl::Duration retry_after);

}  // namespace peerchunk
