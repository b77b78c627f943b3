#pragma once

#include <string>

#include <absl/status/statusor.h>

#include "peer/source_set.h"
#include "peerchunk/base/file_head.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// The ObjectStat::version of a file as a peer declared it: of another form than any store's.
std::string PeerVersion(uint64_t version, uint64_t size, std::optional<uint32_t> crc32c);

// The options for a read that may ask for one version. A store's version can only be read from the
// store; a peer's version is what it declared, and Aborted when that has changed.
absl::StatusOr<ReadOptions> ResolveVersion(const SourceSet& sources, FileKind kind,
                                           const ReadOptions& options);

}  // namespace peerchunk
