#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <absl/status/statusor.h>

#include "peerchunk/storage/storage.h"
#include "storage/gcs_core/attempt.h"
#include "storage/gcs_core/gcs_context.h"
#include "storage/gcs_core/upload_source.h"

namespace peerchunk {

// Writes `source` as `object` (full name), in the way that suits its size, and confirms size and
// CRC32C of what the store holds then.
absl::StatusOr<ObjectStat> StoreObject(GcsContext& context, const std::string& object,
                                       const UploadSource& source, const WriteOptions& options);

// Takes from the server the sessions and parts of every recorded upload that is not under way and
// that is old, or of an object (full name) of which `goes_on` is false. Returns of how many; an
// error when something is left that another call may take.
absl::StatusOr<uint64_t> DiscardUploads(GcsContext& context,
                                        const std::function<bool(const std::string&)>& goes_on,
                                        const CallLimits& limits);

}  // namespace peerchunk
