#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

#include "peerchunk/base/range.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// What the local provider keeps beside an object, as JSON:
//   {"size": 5, "crc32c": 123, "metadata": {"key": "value"}}
struct LocalSidecar {
  uint64_t size = 0;
  uint32_t crc32c = 0;
  ObjectMetadata metadata;
};

inline constexpr uint64_t kMaxSidecarBytes = 64 * kKiB;

// InvalidArgument when the metadata is not UTF-8, which neither JSON nor Cloud Storage can keep, or
// does not fit into kMaxSidecarBytes.
absl::StatusOr<std::string> EncodeSidecar(const LocalSidecar& sidecar);

// DataLoss for anything EncodeSidecar does not write.
absl::StatusOr<LocalSidecar> DecodeSidecar(std::string_view text);

}  // namespace peerchunk
