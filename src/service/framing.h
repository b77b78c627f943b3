#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

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

// A message ready for gRPC: all of it but the data, which follows as a slice of its own, without a
// copy. That is valid protobuf because `extent` and, in it, `data` are the last fields, and so is
// whatever a part wraps.
struct FramedMessage {
  grpc::Slice prefix;
  std::optional<grpc::Slice> data;

  size_t size() const { return prefix.size() + (data ? data->size() : 0); }
  grpc::ByteBuffer ToByteBuffer() const;
};

// One GetBuildFileResponse. The generated code writes head and end, which few messages have; the
// extent is written by hand.
FramedMessage FrameMessage(const std::optional<FileHead>& head,
                           const std::optional<OutgoingExtent>& extent,
                           const std::optional<OutgoingEnd>& end);

// One part of a ReadBuildFileResponse: of read `id`, the given GetBuildFileResponse. Parts one
// after the other make up a message.
FramedMessage FramePart(uint64_t id, const FramedMessage& message);
FramedMessage FramePartError(uint64_t id, const absl::Status& error, absl::Duration retry_after);

// The same part for reads that are answered whole, one after the other, from one file: what they
// have in common is encoded once.
class WholeAnswerFramer {
 public:
  explicit WholeAnswerFramer(const FileHead& head);

  // Bytes that Write may write, less the data.
  size_t MostBytes() const { return head_.size() + status_.size() + 96; }
  // Writes the part that answers read `id` to `out`, up to where the data go; returns its end. With
  // `data_length` 0 the extent is `zero_length` zeros, or there is none.
  uint8_t* Write(uint64_t id, uint64_t offset, uint64_t zero_length, uint32_t crc32c,
                 uint64_t data_length, uint8_t* out) const;

 private:
  std::string head_;    // As a field.
  std::string status_;  // As a field.
};

}  // namespace peerchunk
