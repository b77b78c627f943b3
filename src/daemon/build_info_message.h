#pragma once

#include <string>

#include "peerchunk/node/node.h"
#include "peerchunk/v1/sandbox_service.pb.h"

namespace peerchunk {

// A build as SandboxService tells it. `mount_path`: where it is mounted here, or empty.
v1::BuildInfo ToMessage(const NodeBuildInfo& info, const std::string& mount_path);

}  // namespace peerchunk
