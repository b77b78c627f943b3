#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/range.h"

namespace peerchunk {

// The parts of a build's memory that a resume reads first, in that order: what `prefetch.memory` of
// metadata.json says: {"indices":[...],"access_types":["r",...],"block_size":4096}.
struct WorkingSet {
  uint64_t block_bytes = 0;
  std::vector<uint64_t> blocks;  // Indices, each once.

  friend bool operator==(const WorkingSet&, const WorkingSet&) = default;
};

// The same for what is recorded and what is followed; more than this is left out.
inline constexpr size_t kMaxWorkingSetBlocks = 32 * kKiB;

// What a metadata.json, or what EncodeWorkingSet made, says of a memory of `device_bytes`: nothing
// when it says nothing. Total; InvalidArgument for anything else that is no working set of it.
absl::StatusOr<std::optional<WorkingSet>> DecodeWorkingSet(std::string_view json,
                                                           uint64_t device_bytes);

// A JSON object with a `prefetch` and nothing else.
std::string EncodeWorkingSet(const WorkingSet& set);

// `metadata` with a `prefetch` added; every byte of it stays. FailedPrecondition when it has one
// already, InvalidArgument when it is no JSON object.
absl::StatusOr<std::string> WithWorkingSet(std::string_view metadata, const WorkingSet& set);

}  // namespace peerchunk
