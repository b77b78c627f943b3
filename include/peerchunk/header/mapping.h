#pragma once

#include <cstdint>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "peerchunk/base/build_id.h"

namespace peerchunk {

// The bytes [offset, offset + length) of a device are the bytes from `storage_offset` on of
// `build_id`'s diff file; with a nil build id they are zeros and `storage_offset` means nothing.
struct Mapping {
  uint64_t offset = 0;
  uint64_t length = 0;
  BuildId build_id;
  uint64_t storage_offset = 0;

  // Does not overflow for a mapping that came out of a Header or of a function below.
  uint64_t end() const { return offset + length; }
  bool is_zero() const { return build_id.is_nil(); }

  friend bool operator==(const Mapping&, const Mapping&) = default;
};

// The blocks of a device that differ from the build it was started from, as indices in units of the
// device's block size: ascending, no index twice, no index in both lists.
struct ChangedBlocks {
  std::vector<uint64_t> dirty;   // their bytes lie in the diff file, packed, in this order
  std::vector<uint64_t> zeroed;  // all zeros now: not in the diff file
};

// The mappings of the changed blocks alone (gaps between them are unchanged): neighbouring blocks
// of one kind form a run, and each dirty run's storage offset is the number of bytes of the dirty
// runs before it. The last block is cut at `device_size` rounded up to a page. InvalidArgument when
// `block_size` is not a positive multiple of the page or the blocks break the rules above.
absl::StatusOr<std::vector<Mapping>> MakeDiffMappings(const BuildId& build_id,
                                                      const ChangedBlocks& blocks,
                                                      uint64_t block_size, uint64_t device_size);

// `base` with `diff` laid over it; a piece of `base` that is cut at its front moves its storage
// offset by as much. `base` must be contiguous from 0, `diff` ascending without overlap and inside
// `base`; InvalidArgument otherwise. One sweep; not normalized.
absl::StatusOr<std::vector<Mapping>> MergeMappings(absl::Span<const Mapping> base,
                                                   absl::Span<const Mapping> diff);

// Joins neighbours that touch and are of one build where the storage is contiguous too; zeros join
// whatever their storage offset, which becomes 0. The bytes that a device shows do not change.
std::vector<Mapping> NormalizeMappings(absl::Span<const Mapping> mappings);

}  // namespace peerchunk
