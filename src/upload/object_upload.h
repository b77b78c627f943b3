#pragma once

#include <functional>
#include <stop_token>

#include <absl/status/status.h>

#include "peerchunk/base/file_kind.h"
#include "peerchunk/storage/storage.h"
#include "peerchunk/template/build_registry.h"

namespace peerchunk {

// Under which the version of metadata.json is kept with the object, as a decimal number.
inline constexpr char kVersionKey[] = "peerchunk-version";
// Under which RecordedBuild::upload_token is kept with each object.
inline constexpr char kTokenKey[] = "peerchunk-upload";

// Brings single files of recorded builds to the base and has them confirmed by size and CRC32C. An
// object that is there already with the same bytes is not sent again; one with other bytes is
// overwritten only where it was written for this very build (what the base kept of a write that
// failed half-way), or is an older version of its metadata.json. Stateless but for what it borrows;
// any thread.
class ObjectUpload {
 public:
  // Borrowed. `on_sent` is told of each object that was sent, with its size. `suspension` as in
  // WriteOptions: the next process goes on with what is stopped then.
  ObjectUpload(BuildRegistry* registry, StorageProvider* base,
               std::function<void(FileKind, uint64_t)> on_sent, std::stop_token suspension = {})
      : registry_(registry),
        base_(base),
        on_sent_(std::move(on_sent)),
        suspension_(std::move(suspension)) {}

  // OK: the base confirmed the file as `build` records it. AlreadyExists: other bytes are at its
  // path, which no retry will change. DataLoss: this node's copy does not match its record. Other
  // errors are worth another attempt. `stop` ends it soon.
  absl::Status Upload(const RecordedBuild& build, FileKind kind, std::stop_token stop);

  // Whether the base has the file as `build` records it, right now.
  absl::StatusOr<bool> IsInBase(const RecordedBuild& build, FileKind kind, std::stop_token stop);

 private:
  struct Object;
  absl::StatusOr<Object> Open(const RecordedBuild& build, FileKind kind, std::stop_token stop);
  absl::Status Write(Object& object);
  absl::StatusOr<ObjectStat> Send(Object& object, const WriteOptions& options);
  absl::StatusOr<bool> Matches(Object& object, const ObjectStat& stat);
  absl::Status Confirm(Object& object, const absl::StatusOr<ObjectStat>& written);
  static bool IsOurs(const Object& object, const ObjectStat& stat);
  absl::Status CheckCopy(const Object& object);

  BuildRegistry* const registry_;
  StorageProvider* const base_;
  const std::function<void(FileKind, uint64_t)> on_sent_;
  const std::stop_token suspension_;
};

}  // namespace peerchunk
