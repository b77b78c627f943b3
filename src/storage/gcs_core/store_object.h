#pragma once

#include <string>

#include <absl/status/statusor.h>

#include "peerchunk/storage/storage.h"
#include "storage/gcs_core/gcs_context.h"
#include "storage/gcs_core/upload_source.h"

namespace peerchunk {

// Writes `source` as `object` (full name), in the way that suits its size, and confirms size and
// CRC32C of what the store holds then.
absl::StatusOr<ObjectStat> StoreObject(GcsContext& context, const std::string& object,
                                       const UploadSource& source, const WriteOptions& options);

}  // namespace peerchunk
