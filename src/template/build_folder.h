#pragma once

#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "peerchunk/base/file.h"
#include "peerchunk/template/build_registry.h"

namespace peerchunk {

// The names of folders that hold no complete build (see BuildRegistry).
inline constexpr std::string_view kPausePrefix = ".pause-";
inline constexpr std::string_view kRemovePrefix = ".remove-";
inline constexpr std::string_view kDamagedPrefix = ".damaged-";

// What LoadBuilds found in a registry's folder.
struct LoadedFolder {
  std::vector<RecordedBuild> builds;  // Without incarnation and sequence.
  std::vector<std::string> report;    // For a human, one line each.
};

// Reads every build's record and tidies up after a crash: half-written pauses and half-done
// removals are removed, builds with a damaged record set aside. A build whose files cannot match
// its record is FAILED; one that had FAILED for another reason is LOCAL again. An error only when
// the folder itself cannot be read.
absl::StatusOr<LoadedFolder> LoadBuilds(const File& folder);

// Shares a snapshot's files into `name` (made anew inside `folder`), checks them and writes the
// records beside them. Neither synced nor given its final name. Not cleaned up after an error.
absl::StatusOr<RecordedBuild> FillBuildFolder(const BuildId& id, const SnapshotFiles& files,
                                              const File& folder, const std::string& name,
                                              absl::Time now);

// fsync of every file in `folder` and of the folder.
absl::Status SyncFolder(const File& folder);

}  // namespace peerchunk
