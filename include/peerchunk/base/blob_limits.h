#pragma once

#include <cstdint>

#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/range.h"

namespace peerchunk {

// The largest blobs that there may be. Pause, load, peers and tools have these limits and no
// others: with a lower one anywhere, a build could be paused that cannot be resumed.
inline constexpr uint64_t kMaxHeaderFileBytes = 257 * kMiB;  // 256 MiB and what framing can add.
inline constexpr uint64_t kMaxSnapfileBytes = kGiB;
inline constexpr uint64_t kMaxMetadataBytes = 64 * kMiB;

// Only for blobs: a diff has no limit.
constexpr uint64_t MaxBlobBytes(FileKind blob) {
  if (IsHeader(blob)) return kMaxHeaderFileBytes;
  return blob == FileKind::kSnapfile ? kMaxSnapfileBytes : kMaxMetadataBytes;
}

}  // namespace peerchunk
