#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/blob_limits.h"
#include "peerchunk/base/build_id.h"
#include "peerchunk/base/build_state.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/file_head.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/local_build_file.h"

namespace peerchunk {

// The files of a snapshot that an orchestrator hands over, by absolute path. metadata and the
// rootfs pair are required; memfile, its header and the snapfile come all three, or not at all when
// metadata.json says "filesystem_only": true.
struct SnapshotFiles {
  std::map<FileKind, std::string> paths;
};

// One file of a recorded build.
struct FileRecord {
  std::shared_ptr<const FileChecksums> checksums;
  bool in_base = false;  // The base confirmed these very bytes (size and CRC32C).
};

// What this node knows of a build that it paused, at one moment. Immutable: whoever holds one sees
// no change; ask the registry again for the present (level-triggered).
struct RecordedBuild {
  BuildId id;
  BuildStatus status;
  std::string reason;                     // Why FAILED, or why the latest upload attempt failed.
  uint64_t upload_attempts = 0;           // Failed ones, since the build was last LOCAL.
  uint64_t metadata_version = 1;          // Rises with each ReplaceMetadata.
  uint64_t metadata_version_in_base = 0;  // 0: none confirmed.
  absl::Time paused_at;
  std::map<FileKind, FileRecord> files;
  // Builds whose diffs this build's headers map, itself excluded.
  std::vector<BuildId> ancestors;
  // Where those lie that were read from other nodes when this one was paused.
  std::map<BuildId, std::vector<std::string>> ancestor_sources;
  // The base that `in_base` speaks of, by its description.
  std::string base;
  // Random; kept with each object that is written for this build, so that a half one is known for
  // our own later. Empty: paused by an earlier peerchunk.
  std::string upload_token;

  bool has(FileKind kind) const { return files.contains(kind); }
};

// True when nothing of the build would be lost with this node's copy: it is DURABLE, and the base
// has its newest metadata.json.
bool HeldByBase(const RecordedBuild& build);

// The builds that this node paused: the one authority for their states, kept on disk so that a
// build survives the death of the process (and, once synced, of the host). Folder:
//   <folder>/<build id>/{the files, blocks.crc, record.json}     complete builds
//   <folder>/.pause-<build id>/                                  pauses under way, removed at start
//   <folder>/.remove-<build id>/                                 removals under way, finished at
//                                                                start
//   <folder>/.damaged-<build id>-<n>/                            set aside, never deleted by us
//   <folder>/.discarded-<build id>                               removed before it was DURABLE
// A later version n of metadata.json is a file of its own, metadata.json.<n>. Thread-safe. No lock
// is held over I/O that a reader could wait for.
class BuildRegistry {
 public:
  struct Options {
    std::string folder;  // Created when missing. A second registry on it is refused (lock file).
    Clock* clock = &Clock::Real();
    // Runs background fsyncs; borrowed. Null: Add and Open sync by themselves.
    Executor* executor = nullptr;
    // Describes where builds are uploaded to. What another base had confirmed is uploaded again.
    std::string base;
    Metrics* metrics = nullptr;  // Borrowed; may be null.
  };

  using AncestorSources = std::function<std::vector<std::string>(const BuildId&)>;

  // Reads the records: what was LOCAL or UPLOADING is so again, FAILED is tried again, as is what
  // is DURABLE in another base; half-written pauses are removed and reported in StartupReport().
  // What is not DURABLE is synced again: the process may have ended before that was done.
  static absl::StatusOr<std::unique_ptr<BuildRegistry>> Open(Options options);
  ~BuildRegistry();

  // What was found at start that a human should know, one line each.
  const std::vector<std::string>& StartupReport() const;

  uint64_t incarnation() const;

  // Takes over a snapshot's files: shares them in, checks them against their headers, records their
  // checksums. When it returns the build is LOCAL and survives SIGKILL; with `sync` also a power
  // cut. InvalidArgument: files that are missing or disagree (what and which), or a header that is
  // marked incomplete; Unimplemented: a header that maps a compressed diff; AlreadyExists: this
  // build is recorded here; ResourceExhausted: no space. After an error nothing is left behind.
  // `sources_of`, where given, says where the build's ancestors were read from, for the record.
  absl::StatusOr<std::shared_ptr<const RecordedBuild>> Add(
      const BuildId& id, const SnapshotFiles& files, bool sync,
      const AncestorSources& sources_of = nullptr);

  // Null when this node did not pause the build.
  std::shared_ptr<const RecordedBuild> Find(const BuildId& id) const;
  std::vector<std::shared_ptr<const RecordedBuild>> List() const;
  // True of a build that was removed here before it was DURABLE: no other copy is known.
  bool Discarded(const BuildId& id) const;

  // Opens a recorded file. NotFound: no such build here, or the build has no such file. A copy
  // found not to match its record turns the build FAILED.
  absl::StatusOr<std::shared_ptr<LocalBuildFile>> OpenFile(const BuildFileId& id);
  // The path of a recorded file, for an upload.
  std::string PathOf(const BuildFileId& id) const;

  // Transitions, each recorded on disk (and synced) before it is visible. FailedPrecondition when
  // the state does not allow it; NotFound for a build that is not here. MarkUploading,
  // ConfirmInBase and MarkFailed are OK where nothing would change. A full disk does not stop them:
  // they have a reserve.
  absl::Status MarkUploading(const BuildId& id);
  absl::Status RecordAttempt(const BuildId& id,
                             const absl::Status& why);  // A failed upload attempt.
  // Shows what an upload waits for as the build's reason, in memory only. Not a transition.
  void NoteWaiting(const BuildId& id, std::string_view reason);
  // `metadata_version` only for FileKind::kMetadata: the version that was uploaded.
  absl::Status ConfirmInBase(const BuildFileId& id, uint64_t metadata_version = 0);
  // Takes a confirmation back: the base was found without the object, which is to be sent again.
  absl::Status DropInBase(const BuildFileId& id);
  // Requires every file confirmed; of metadata.json, any version.
  absl::Status MarkDurable(const BuildId& id);
  absl::Status MarkFailed(const BuildId& id, std::string reason);
  absl::Status Retry(const BuildId& id);  // FAILED -> LOCAL.

  // Replaces metadata.json atomically by `bytes`, as the next version. Also for a DURABLE build,
  // whose new metadata then waits for its upload. InvalidArgument as in Add. Aborted when
  // `only_version` is given and is not the one in force.
  absl::Status ReplaceMetadata(const BuildId& id, std::string_view bytes,
                               std::optional<uint64_t> only_version = std::nullopt);

  // Forgets the build and removes its files; open files stay readable through their pins. With
  // `only_if`, which is asked when nothing can change the build any more: FailedPrecondition where
  // it says no.
  absl::Status Remove(const BuildId& id,
                      const std::function<bool(const RecordedBuild&)>& only_if = nullptr);

 private:
  struct Impl;
  explicit BuildRegistry(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;  // Open files that find themselves corrupt know it weakly.
};

}  // namespace peerchunk
