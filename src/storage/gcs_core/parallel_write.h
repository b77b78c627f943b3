#pragma once

#include <optional>
#include <string>

#include <absl/status/statusor.h>

#include "storage/gcs_core/object_write.h"
#include "storage/gcs_core/session_journal.h"
#include "storage/gcs_core/upload_source.h"

namespace peerchunk {

// How the source is cut: into one part, or into at most 32 of a size that the server can compose.
uint64_t PartBytesFor(const GcsTuning& tuning, uint64_t size);

// Where the parts of one upload lie, ending in '/': outside everything that is listed as a build.
std::string PartsPrefix(const GcsContext& context, const std::string& upload);

// Writes a large object as parts on the lanes of the process, then composes them once. `crc32c` is
// the promised one, where there is one. Leaves the parts to the caller; confirms the object.
absl::StatusOr<GcsObject> WriteParts(GcsContext& context, const ObjectWrite& write,
                                     const UploadSource& source, std::optional<uint32_t> crc32c,
                                     SessionJournal::Claim& claim);

// The same in one session, on one lane.
absl::StatusOr<GcsObject> WriteWhole(GcsContext& context, const ObjectWrite& write,
                                     const UploadSource& source, std::optional<uint32_t> crc32c,
                                     SessionJournal::Claim& claim);

// Deletes the parts that an upload left, those included whose outcome it never learned. Counts and
// logs a failure: a lifecycle rule on the bucket collects the rest.
absl::Status DeleteParts(GcsContext& context, const std::string& upload, const CallLimits& limits);

}  // namespace peerchunk
