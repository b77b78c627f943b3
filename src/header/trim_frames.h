#pragma once

#include <vector>

#include <absl/types/span.h>

#include "peerchunk/header/build_record.h"
#include "peerchunk/header/mapping.h"

namespace peerchunk::header {

// Of `records`, those of builds that `mappings` reads, each with the frames that hold bytes it
// reads.
std::vector<BuildRecord> TrimRecords(absl::Span<const BuildRecord> records,
                                     absl::Span<const Mapping> mappings);

}  // namespace peerchunk::header
