#pragma once

#include <optional>
#include <string>
#include <vector>

#include <absl/types/span.h>

#include "peerchunk/header/header.h"

namespace peerchunk::header {

// The rules that every header keeps, written once: Header::Create and Header::Decode both come
// through here, so that what can be written can be read. Each function says what is wrong, or
// nothing; the caller knows whether that is a wrong argument or wrong bytes.
using Problem = std::optional<std::string>;

// Rules of every version: nothing else may be computed about a header that breaks them.
Problem CheckMetadata(const HeaderMetadata& metadata);
Problem CheckMappingBounds(absl::Span<const Mapping> mappings);

// Violations of the mapping's invariants, which V1 and V2 tolerate. The first few are spelled out
// and the rest counted, so that the answer stays small.
std::vector<std::string> FindViolations(const HeaderMetadata& metadata,
                                        absl::Span<const Mapping> mappings);

// The limits of V4 and V5, and that V1 to V3 have no extras. The mapping must be within bounds.
Problem CheckExtras(const HeaderMetadata& metadata, absl::Span<const Mapping> mappings,
                    const HeaderExtras& extras);

// All of the above, violations included.
Problem CheckAll(const HeaderMetadata& metadata, absl::Span<const Mapping> mappings,
                 const HeaderExtras& extras);

// What of `m` lies inside the device: its last page may reach past the end.
uint64_t LengthOnDevice(const HeaderMetadata& metadata, const Mapping& m);

// The mapping that a V1 to V3 file without entries stands for.
std::vector<Mapping> IdentityMappings(const HeaderMetadata& metadata);

// The record of `build_id` in `builds`, which are ascending; null if none.
const BuildRecord* FindRecord(absl::Span<const BuildRecord> builds, const BuildId& build_id);

}  // namespace peerchunk::header
