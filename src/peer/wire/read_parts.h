#pragma once

#include <cstdint>
#include <vector>

#include <absl/status/statusor.h>

#include "peer/wire/message_bytes.h"

namespace peerchunk {

// One part of a ReadBuildFileResponse.
struct ReadPart {
  uint64_t id = 0;
  absl::Status error;    // OK: there is a message, a GetBuildFileResponse, not looked into yet.
  MessageBytes message;  // Shares the memory of what it came in.
};

// Takes a ReadBuildFileResponse apart. Total: any bytes give parts or DataLoss.
absl::StatusOr<std::vector<ReadPart>> DecodeReadParts(const MessageBytes& bytes);

}  // namespace peerchunk
