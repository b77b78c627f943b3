#pragma once

#include <optional>

#include <absl/status/statusor.h>

#include "peerchunk/base/file_head.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {

// This node's values as the wire's messages, and requests from it, parsed into types at the edge.
void HeadToWire(const FileHead& head, v1::FileHead* wire);
void StatusToWire(const BuildStatus& status, v1::BuildStatus* wire);

// InvalidArgument: the id is not a UUID, or the file is not one of the six.
absl::StatusOr<BuildFileId> FileFromWire(const std::string& build_id, v1::BuildFile file);

}  // namespace peerchunk
