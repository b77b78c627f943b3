#pragma once

#include <absl/status/status.h>
#include <grpcpp/support/byte_buffer.h>

#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {

// InvalidArgument for what is malformed, or brings more reads than any reader sends: those are
// counted before anything is allocated for them.
absl::Status ParseReadRequest(grpc::ByteBuffer& buffer, v1::ReadBuildFileRequest& request);

}  // namespace peerchunk
