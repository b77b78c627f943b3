#pragma once

#include <absl/status/statusor.h>

#include "storage/gcs_core/object_write.h"
#include "storage/gcs_core/upload_source.h"

namespace peerchunk {

// Writes a small object with one WriteObject per attempt, on the caller's thread. The source's
// CRC32C is `crc32c`. Returns what the store holds, not yet confirmed.
absl::StatusOr<GcsObject> WriteOneShot(GcsContext& context, ObjectWrite write,
                                       const UploadSource& source, uint32_t crc32c);

}  // namespace peerchunk
