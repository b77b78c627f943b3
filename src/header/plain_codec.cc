#include "header/plain_codec.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "header/byte_writer.h"
#include "header/validate.h"

namespace peerchunk::header {

absl::StatusOr<HeaderMetadata> DecodeMetadata(ByteReader& reader) {
  HeaderMetadata m;
  if (reader.remaining() < kMetadataBytes) {
    return absl::DataLossError(
        absl::StrCat("header of ", reader.remaining(), " bytes has no room for its metadata"));
  }
  reader.ReadU64(m.version);
  reader.ReadU64(m.block_size);
  reader.ReadU64(m.size);
  reader.ReadU64(m.generation);
  reader.ReadBuildId(m.build_id);
  reader.ReadBuildId(m.base_build_id);
  return m;
}

void AppendMetadata(std::string& out, const HeaderMetadata& metadata) {
  AppendU64(out, metadata.version);
  AppendU64(out, metadata.block_size);
  AppendU64(out, metadata.size);
  AppendU64(out, metadata.generation);
  AppendBuildId(out, metadata.build_id);
  AppendBuildId(out, metadata.base_build_id);
}

absl::StatusOr<std::vector<Mapping>> DecodeRecords(ByteReader& reader, uint64_t count) {
  if (count > kMaxMappings || count > reader.remaining() / kRecordBytes) {
    return absl::DataLossError(
        absl::StrCat(count, " mappings in ", reader.remaining(), " bytes, limit ", kMaxMappings));
  }
  std::vector<Mapping> mappings(count);
  for (Mapping& m : mappings) {
    reader.ReadU64(m.offset);
    reader.ReadU64(m.length);
    reader.ReadBuildId(m.build_id);
    reader.ReadU64(m.storage_offset);
  }
  return mappings;
}

void AppendRecords(std::string& out, absl::Span<const Mapping> mappings) {
  for (const Mapping& m : mappings) {
    AppendU64(out, m.offset);
    AppendU64(out, m.length);
    AppendBuildId(out, m.build_id);
    AppendU64(out, m.storage_offset);
  }
}

absl::StatusOr<std::vector<Mapping>> DecodePlain(const HeaderMetadata& metadata,
                                                 ByteReader& reader) {
  if (reader.remaining() % kRecordBytes != 0) {
    return absl::DataLossError(
        absl::StrCat("last mapping is torn: ", reader.remaining() % kRecordBytes, " of ",
                     kRecordBytes, " bytes"));
  }
  if (reader.remaining() == 0) return IdentityMappings(metadata);
  return DecodeRecords(reader, reader.remaining() / kRecordBytes);
}

absl::Span<const Mapping> PlainEntries(const HeaderMetadata& metadata,
                                       absl::Span<const Mapping> mappings) {
  if (metadata.size % kPageBytes != 0 && mappings == IdentityMappings(metadata)) return {};
  return mappings;
}

}  // namespace peerchunk::header
