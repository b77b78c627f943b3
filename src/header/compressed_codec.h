#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <absl/hash/hash.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "header/byte_reader.h"
#include "peerchunk/header/header.h"

namespace peerchunk::header {

// Formats V4 and V5: `metadata | u8 flags | u32 uncompressed_size | LZ4 frame`. The frame holds the
// inner part: the builds section, then the mapping, as records in V4 and in columns in V5.
inline constexpr uint64_t kFramingBytes = 5;

// V5's table of builds, in the order in which the mapping names them. Filled by one thread.
class BuildTable {
 public:
  // The build's index; a new one is put at the end.
  uint32_t IndexOf(const BuildId& id);
  absl::Span<const BuildId> builds() const { return builds_; }

 private:
  std::vector<BuildId> builds_;
  std::unordered_map<BuildId, uint32_t, absl::Hash<BuildId>> index_;
  uint32_t last_ = 0;  // neighbours tend to be of few builds
};

// The size of the inner part, by arithmetic.
uint64_t InnerSize(uint16_t format, absl::Span<const Mapping> mappings,
                   absl::Span<const BuildRecord> builds);

std::string EncodeInner(uint16_t format, absl::Span<const Mapping> mappings,
                        absl::Span<const BuildRecord> builds);

// Appends what follows the metadata.
void AppendCompressed(std::string& out, uint16_t format, absl::Span<const Mapping> mappings,
                      const HeaderExtras& extras);

// Reads what follows the metadata. The result is structurally sound; the limits and invariants of
// validate.h are for the caller to check.
absl::StatusOr<std::pair<std::vector<Mapping>, HeaderExtras>> DecodeCompressed(
    const HeaderMetadata& metadata, ByteReader& reader);

}  // namespace peerchunk::header
