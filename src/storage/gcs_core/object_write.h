#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <absl/status/statusor.h>

#include "peerchunk/storage/storage.h"
#include "storage/gcs_core/attempt.h"
#include "storage/gcs_core/gcs_context.h"

namespace peerchunk {

// One object to be written: what all ways of writing it share.
struct ObjectWrite {
  std::string object;  // Full name in the bucket.
  ObjectMetadata metadata;
  std::optional<int64_t> if_generation;  // 0: create only.
  CallLimits limits;
  std::stop_token suspension;
  // An earlier attempt, maybe of an earlier process, may have succeeded without our knowing.
  bool outcome_unknown = false;

  // True when the same write, later, may well succeed, or will be made again after it was
  // suspended: what it left on the server is worth keeping.
  bool WorthResumingAfter(const absl::Status& status) const;

  // An `if_version` that is no generation becomes one that never exists.
  static absl::StatusOr<ObjectWrite> From(std::string object, const WriteOptions& options);
};

// The CRC32C of the bytes to be written, where it takes reading them.
using CrcSource = std::function<absl::StatusOr<uint32_t>()>;

// What FAILED_PRECONDITION on a write of these bytes means, found out from the live object: the
// object itself when an earlier attempt had succeeded; AlreadyExists or Aborted when the
// precondition does not hold; nothing when it does, and the complaint was about something else.
absl::StatusOr<std::optional<GcsObject>> ResolveFailedPrecondition(GcsContext& context,
                                                                   const ObjectWrite& write,
                                                                   uint64_t size,
                                                                   const CrcSource& crc32c);

// OK when the store holds these bytes. An object that does not say its CRC32C is asked for it.
absl::Status ConfirmObject(GcsContext& context, const CallLimits& limits, GcsObject& object,
                           uint64_t size, uint32_t crc32c);

}  // namespace peerchunk
