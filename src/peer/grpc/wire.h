#pragma once

#include <absl/status/statusor.h>

#include "peerchunk/base/file_head.h"
#include "peerchunk/peer/chunk_service_client.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {

// The wire's messages as this library's own values, and back. DataLoss for an answer that a correct
// peer cannot give (an availability that does not exist, say).
absl::StatusOr<FileHead> HeadFromWire(const v1::FileHead& wire);
absl::StatusOr<BuildStatus> StatusFromWire(const v1::BuildStatus& wire);
v1::BuildFile FileToWire(FileKind kind);
v1::GetBuildFileRequest RequestToWire(const PeerRequest& request);

}  // namespace peerchunk
