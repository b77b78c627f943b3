#pragma once

#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "peer/wire/message_bytes.h"
#include "peerchunk/base/range.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk {

// One GetBuildFileResponse, taken apart where it lies: the extent's data stays where the
// transport put it. Total: any bytes give a message or DataLoss. The pieces of
// `message().extent` live as long as the decoder. Not thread-safe.
class MessageDecoder {
 public:
  // No data longer than this in one extent (chunk_service.proto).
  static constexpr uint64_t kMaxExtentDataBytes = kMiB;

  static absl::StatusOr<MessageDecoder> Decode(MessageBytes bytes);

  MessageDecoder(MessageDecoder&&) = default;
  MessageDecoder& operator=(MessageDecoder&&) = default;

  const PeerMessage& message() const { return message_; }

 private:
  MessageDecoder() = default;

  MessageBytes bytes_;
  std::vector<std::string_view> pieces_;  // Of the extent's data.
  PeerMessage message_;
};

}  // namespace peerchunk
