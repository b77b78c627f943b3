#pragma once

#include "peerchunk/node/node.h"

namespace peerchunk {

// What lists show of a build: from its record, when it was paused here, and from its template, when
// it is loaded here.
void AddRecord(const RecordedBuild& record, NodeBuildInfo& info);
void AddTemplate(const Template& loaded, TemplateCache& templates, const PeerDirectory& directory,
                 NodeBuildInfo& info);
// The layers of a build that is recorded here and not loaded, from its headers on the disk.
absl::Status AddRecordedLayers(const RecordedBuild& record, BuildRegistry& registry,
                               const TemplateCache& templates, const PeerDirectory& directory,
                               NodeBuildInfo& info);

// Where the bytes of the build's own files came from; a file of which nothing else is known is
// added.
void AddSources(const std::vector<KnownFile>& known, NodeBuildInfo& info);

// True when a device of `loaded` reads bytes of `build`.
bool Maps(const Template& loaded, const BuildId& build);

}  // namespace peerchunk
