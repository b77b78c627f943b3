#pragma once

#include <stop_token>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/peer/chunk_service_client.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// Whether a build that another node paused is durable: a source says so or, where no source still
// has it on the way there (LOCAL, UPLOADING, FAILED), the base has its metadata.json, which is
// written last, and the files that its headers need. A source that never recorded the build cannot
// say anything of it. DataLoss: a source discarded its only copy, and the base does not have it.
// Any other error means "could not tell". `stop` ends it soon.
absl::StatusOr<bool> ForeignAncestorIsDurable(const BuildId& ancestor,
                                              const std::vector<PeerAddress>& sources,
                                              ChunkServiceConnector& connector,
                                              StorageProvider& base, const std::stop_token& stop);

// The first source that has a build and is not done with its upload; null: none that answers.
const PeerAddress* SourceAtWork(const BuildId& build, const std::vector<PeerAddress>& sources,
                                ChunkServiceConnector& connector);

// Whether the base has everything of a build that reading it takes.
absl::StatusOr<bool> CompleteInBase(const BuildId& build, StorageProvider& base,
                                    const ReadOptions& options);

}  // namespace peerchunk
