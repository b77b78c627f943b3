#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "header/byte_reader.h"
#include "peerchunk/header/header.h"

namespace peerchunk::header {

// The parts that formats V1 to V3 are made of; V4 and V5 share the metadata, V4 the records.
inline constexpr uint64_t kMetadataBytes = 64;
inline constexpr uint64_t kRecordBytes = 40;

absl::StatusOr<HeaderMetadata> DecodeMetadata(ByteReader& reader);
void AppendMetadata(std::string& out, const HeaderMetadata& metadata);

// `count` records; the bytes that remain must hold them. DataLoss when there are too many.
absl::StatusOr<std::vector<Mapping>> DecodeRecords(ByteReader& reader, uint64_t count);
void AppendRecords(std::string& out, absl::Span<const Mapping> mappings);

// All that follows the metadata in V1 to V3. No entries: identity.
absl::StatusOr<std::vector<Mapping>> DecodePlain(const HeaderMetadata& metadata,
                                                 ByteReader& reader);

// Entries that are written for these mappings. A device whose size is no multiple of the page can
// have an identity only without entries: readers elsewhere take "sum == size" to the letter.
absl::Span<const Mapping> PlainEntries(const HeaderMetadata& metadata,
                                       absl::Span<const Mapping> mappings);

}  // namespace peerchunk::header
