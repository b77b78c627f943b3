#pragma once

#include <functional>
#include <optional>
#include <set>
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
inline constexpr std::string_view kDiscardedPrefix = ".discarded-";  // Of an empty file.

// What LoadBuilds found in a registry's folder.
struct LoadedFolder {
  std::vector<RecordedBuild> builds;  // Without incarnation and sequence.
  std::set<BuildId> discarded;
  std::vector<std::string> report;  // For a human, one line each.
};

// Reads every build's record and tidies up after a crash: half-written pauses and half-done
// removals are removed, builds that are damaged set aside; one that cannot be read just now is left
// where it is. A build whose files cannot match its record is FAILED; one that had FAILED for
// another reason is LOCAL again, and so is one whose objects are in another base than `base`. An
// error only when the folder itself cannot be read.
absl::StatusOr<LoadedFolder> LoadBuilds(const File& folder, const std::string& base);

// What a record has besides the files.
struct PauseFacts {
  absl::Time now;
  std::string base;
  BuildRegistry::AncestorSources sources_of;  // May be empty.
};

// Shares a snapshot's files into `name` (made anew inside `folder`), checks them and writes the
// records beside them. Neither synced nor given its final name. Not cleaned up after an error.
absl::StatusOr<RecordedBuild> FillBuildFolder(const BuildId& id, const SnapshotFiles& files,
                                              const File& folder, const std::string& name,
                                              const PauseFacts& facts);

// fsync of every file in `folder` and of the folder.
absl::Status SyncFolder(const File& folder);

}  // namespace peerchunk
