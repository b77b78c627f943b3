#pragma once

#include <memory>

#include <absl/status/statusor.h>

#include "node/fetch_build.h"
#include "peerchunk/node/node.h"

namespace peerchunk {

// What FetchBuild copies when a daemon fetches: this node's own files of a build that was paused
// here, else what the sources and the base have. `node` outlives it. PermissionDenied or
// InvalidArgument for a source address that the policy refuses.
absl::StatusOr<std::unique_ptr<BuildContent>> OpenNodeContent(Node& node, const BuildId& build,
                                                              const BuildSources& sources);

}  // namespace peerchunk
