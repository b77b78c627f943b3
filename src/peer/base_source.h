#pragma once

#include <memory>
#include <optional>

#include "peer/source_policy.h"
#include "peer/source_set.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// What the base is to one file at one moment.
struct BaseAdmission {
  // kUntried: admitted, read on. Otherwise `cause` says why not.
  BaseOutcome outcome = BaseOutcome::kUntried;
  absl::Status cause;
  bool complete = false;           // metadata.json was found there before anything else was asked.
  std::optional<ObjectStat> stat;  // When it was asked for, or had to be looked at.
};

// Decides whether the base may be a source for a file, with as few calls to it as `trust` allows. A
// base that is confirmed to have the file and has other bytes than a peer declared puts that peer
// into quarantine. An object that was looked at and has less than options.least_size bytes is
// refused. Blocking; any thread.
BaseAdmission AdmitBase(const SourceSet& sources, FileKind kind, BaseTrust trust, bool want_stat,
                        const ReadOptions& options);

// OK when metadata.json, written last of all, is in the base; NotFound when it is not. Blocking.
absl::Status FindComplete(const SourceSet& sources, const ReadOptions& options);

// The base's object for a file. Diffs and blobs alike: a blob may have to go on in its middle.
absl::StatusOr<std::unique_ptr<Seekable>> OpenInBase(const SourceSet& sources, FileKind kind);

// NotFound is "missing", anything else a failure.
BaseOutcome OutcomeOf(const absl::Status& status);

}  // namespace peerchunk
