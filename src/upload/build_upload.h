#pragma once

#include <functional>

#include <absl/container/flat_hash_set.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "peerchunk/base/mutex.h"
#include "upload/object_upload.h"

namespace peerchunk {

// How an attempt to bring one build to the base ended.
struct AttemptResult {
  enum class Kind {
    kDurable,   // Became durable in this attempt.
    kMetadata,  // Was durable before; its newer metadata was confirmed in this attempt.
    kDone,      // Nothing is left to do: held by the base before, FAILED, or gone.
    kWaiting,   // For an ancestor; `why` names it.
    kRetry,     // `why` went wrong.
    kGiveUp,    // `why` will not pass by itself.
  };
  Kind kind = Kind::kDone;
  absl::Status why;
};

// One attempt after another to bring builds to the base: diffs and snapfile, headers once the
// ancestors are durable, metadata.json last. Thread-safe for different builds.
class BuildUpload {
 public:
  using AncestorIsDurable =
      std::function<absl::StatusOr<bool>(const BuildId&, const std::stop_token&)>;

  // Borrowed: `registry`. `ancestor_is_durable` is asked about builds that were not paused here.
  BuildUpload(BuildRegistry* registry, ObjectUpload objects, AncestorIsDurable ancestor_is_durable)
      : registry_(registry),
        objects_(std::move(objects)),
        ancestor_is_durable_(std::move(ancestor_is_durable)) {}

  // `stop` ends it soon, with kRetry.
  AttemptResult Attempt(const BuildId& id, const std::stop_token& stop);

 private:
  absl::Status UploadAndConfirm(const RecordedBuild& build, FileKind kind,
                                const std::stop_token& stop);
  absl::Status CheckStillThere(const RecordedBuild& build, const std::stop_token& stop);
  absl::Status CheckAncestors(const RecordedBuild& build, const std::stop_token& stop);
  absl::StatusOr<AttemptResult> Proceed(const RecordedBuild& build, const std::stop_token& stop);

  BuildRegistry* const registry_;
  ObjectUpload objects_;
  const AncestorIsDurable ancestor_is_durable_;
  Mutex mutex_;
  absl::flat_hash_set<BuildId> known_durable_ PEERCHUNK_GUARDED_BY(mutex_);  // Foreign ancestors.
};

}  // namespace peerchunk
