#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "storage/gcs_core/attempt.h"
#include "storage/gcs_core/gcs_context.h"

// The requests that carry no content. `object` is always the full name in the bucket.

namespace peerchunk {

// The live object; NotFound when there is none.
absl::StatusOr<GcsObject> GetObject(GcsContext& context, const CallLimits& limits,
                                    const std::string& object);

// Size, checksum, version and metadata as callers see them.
ObjectStat ToStat(const GcsObject& object);

// Deletes every object whose name begins with `prefix`, each at the generation that was listed,
// page by page. Returns how many went.
absl::StatusOr<uint64_t> DeleteObjects(GcsContext& context, const CallLimits& limits,
                                       const std::string& prefix);

// Deletes one object at this generation. False when it was not there.
absl::StatusOr<bool> DeleteObject(GcsContext& context, const CallLimits& limits,
                                  const std::string& object, int64_t generation);

// Tells the server, as far as it can be told quickly, that nobody will go on with these upload
// sessions; empty ids are passed over. Also for a caller who has cancelled.
void CancelSessions(GcsContext& context, const std::vector<std::string>& upload_ids,
                    std::optional<size_t> avoid = {});

// OK when the bucket exists and may be listed. Tried again as every read, within `limits`.
absl::Status CheckBucket(GcsContext& context, const CallLimits& limits);

}  // namespace peerchunk
