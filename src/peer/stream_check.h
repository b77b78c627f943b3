#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <absl/status/status.h>

#include "peerchunk/base/file_head.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk {

// Judges the messages of one GetBuildFile call, in the order they came: nothing of a message is
// used before it passed here. Checks offset, order, length, the declared total and CRC32C, as
// chunk_service.proto has them. A value machine without I/O; one thread.
class StreamCheck {
 public:
  // The range that was asked for; `length` absent: to the end.
  StreamCheck(uint64_t offset, std::optional<uint64_t> length)
      : asked_length_(length), start_(offset), next_(offset) {}

  // DataLoss, and what is wrong, when a correct peer does not send this.
  absl::Status Check(const PeerMessage& message);

  const std::optional<FileHead>& head() const { return head_; }
  // Of the next byte expected.
  uint64_t next_offset() const { return next_; }
  // The offset asked for lies beyond the end of the file.
  bool past_the_end() const { return past_the_end_; }
  // `last` was seen; all bytes of the range came, unless stopped_short().
  bool finished() const { return finished_; }
  bool stopped_short() const { return stopped_short_; }

 private:
  absl::Status CheckHead(const FileHead& head);
  absl::Status CheckExtent(const PeerExtent& extent);

  const std::optional<uint64_t> asked_length_;
  const uint64_t start_;
  uint64_t next_;
  uint64_t end_ = 0;  // Known with the head.
  std::optional<FileHead> head_;
  bool past_the_end_ = false;
  bool finished_ = false;
  bool stopped_short_ = false;
};

}  // namespace peerchunk
