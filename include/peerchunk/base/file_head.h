#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <absl/time/time.h>

#include "peerchunk/base/build_state.h"

namespace peerchunk {

// What a node can do for a reader of one file (chunk_service.proto). Missing is data, no error.
enum class Availability : uint8_t {
  kAvailable = 1,
  kNotAvailable = 2,  // The node does not have this build (or not this part of it).
  kAbsent = 3,        // The build has no such file, by design. Final.
  kUseStorage = 4,    // Durable: read it from the base.
  kNotYet = 5,        // The node will have it; see FileHead::retry_after.
};

// The state of a build on one node at one moment. Of two from one incarnation the one with the
// higher sequence is the newer; kDurable is final whatever the order.
struct BuildStatus {
  BuildState state = BuildState::kUnknown;
  uint64_t incarnation = 0;  // Random per start of the node.
  uint64_t sequence = 0;     // Rises within an incarnation.

  friend bool operator==(const BuildStatus&, const BuildStatus&) = default;
};

// Everything a node says of a file before its bytes.
struct FileHead {
  Availability availability = Availability::kNotAvailable;
  BuildStatus status;
  uint64_t total_size = 0;              // Of the whole file; with kAvailable and kUseStorage.
  std::optional<uint32_t> file_crc32c;  // Of the whole file, recorded at pause.
  uint64_t version = 0;                 // Of metadata.json: higher is newer. 0: unversioned.
  bool in_base = false;                 // This very file is confirmed in the base.
  absl::Duration retry_after;           // With kNotYet.
};

}  // namespace peerchunk
