#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

namespace peerchunk::header {

// The LZ4 frame of V4 and V5: version 1, independent blocks of 4 MiB, block and content checksums.

// Appends the frame that holds `data`.
void AppendLz4Frame(std::string& out, std::string_view data);

// The data of `frame`, which must be one frame of that kind, nothing after it, and hold exactly
// `size` bytes; DataLoss otherwise. Allocates `size` bytes, and only if that many bytes of LZ4 can
// become them at all.
absl::StatusOr<std::string> DecodeLz4Frame(std::string_view frame, uint64_t size);

}  // namespace peerchunk::header
