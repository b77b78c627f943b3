#pragma once

#include <string>

#include "bench/contender.h"
#include "node/transport_credentials.h"
#include "peerchunk/base/file_kind.h"

namespace peerchunk::bench {

// The build file as which a sample is served.
BuildFileId FileOf(size_t sample_index);

// Everything that a node serves from, over each sample as the memfile of a build: a registry and a
// template cache in `folder`, a ChunkService. Returns when it failed.
absl::Status ServeSamples(const Samples& samples, const std::string& folder, const TlsFiles& tls,
                          const ServerProcess::Ready& ready);

}  // namespace peerchunk::bench
