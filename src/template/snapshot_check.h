#pragma once

#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "peerchunk/base/file.h"
#include "peerchunk/header/header.h"
#include "peerchunk/template/build_registry.h"

namespace peerchunk {

// Unimplemented when the header maps a diff that lies in the base compressed, under another name.
absl::Status CheckUncompressed(const Header& header);

// InvalidArgument: the set of files is not that of a full or of a filesystem-only snapshot, or a
// path is not that of an absolute, readable, regular file within the limits.
absl::Status CheckSnapshotPaths(const SnapshotFiles& files);

// InvalidArgument unless `bytes` is a JSON object that names this build, if it names one, and says
// "filesystem_only": true if and only if the snapshot has no memory part.
absl::Status CheckMetadata(std::string_view bytes, const BuildId& id, bool has_memory);

// Checks that the files now in `folder` belong together: each header decodes, is this build's and
// complete, maps no compressed diff (Unimplemented), and no more of this build than its diff has.
// Returns the other builds that the headers map, ascending. Errors name the files by the paths in
// `files`.
absl::StatusOr<std::vector<BuildId>> CheckSnapshot(const BuildId& id, const SnapshotFiles& files,
                                                   const File& folder,
                                                   const std::map<FileKind, FileRecord>& records);

}  // namespace peerchunk
