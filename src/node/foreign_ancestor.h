#pragma once

#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/peer/peer_directory.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// Whether a build that another node paused is durable: its source says so or, with the source gone,
// the base has its metadata.json, which is written last, and the files that its headers need. An
// error means "could not tell".
absl::StatusOr<bool> ForeignAncestorIsDurable(const BuildId& ancestor,
                                              const std::vector<std::string>& sources,
                                              PeerDirectory& directory,
                                              const std::shared_ptr<StorageProvider>& base);

}  // namespace peerchunk
