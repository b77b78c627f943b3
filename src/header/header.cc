#include "peerchunk/header/header.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include <absl/strings/str_cat.h>

#include "header/compressed_codec.h"
#include "header/plain_codec.h"
#include "header/trim_frames.h"
#include "header/validate.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

using header::Problem;

bool AscendingByOffset(const Mapping& a, const Mapping& b) { return a.offset < b.offset; }

}  // namespace

Header::Header(HeaderMetadata metadata, std::vector<Mapping> mappings, HeaderExtras extras,
               std::vector<std::string> warnings)
    : metadata_(metadata),
      mappings_(std::move(mappings)),
      extras_(std::move(extras)),
      warnings_(std::move(warnings)) {}

absl::StatusOr<Header> Header::Create(HeaderMetadata metadata, std::vector<Mapping> mappings,
                                      HeaderExtras extras) {
  if (Problem p = header::CheckAll(metadata, mappings, extras)) {
    return absl::InvalidArgumentError(absl::StrCat("header: ", *p));
  }
  return Header(metadata, std::move(mappings), std::move(extras), {});
}

absl::StatusOr<Header> Header::CreateIdentity(HeaderMetadata metadata) {
  if (Problem p = header::CheckMetadata(metadata)) {
    return absl::InvalidArgumentError(absl::StrCat("header: ", *p));
  }
  return Create(metadata, header::IdentityMappings(metadata));
}

absl::StatusOr<Header> Header::Decode(std::string_view bytes, const DecodeOptions& options) {
  if (bytes.size() > options.max_bytes) {
    return absl::DataLossError(
        absl::StrCat("header of ", bytes.size(), " bytes, limit ", options.max_bytes));
  }
  header::ByteReader reader(bytes);
  PEERCHUNK_ASSIGN_OR_RETURN(const HeaderMetadata metadata, header::DecodeMetadata(reader));
  if (metadata.format() > 5) {
    return absl::UnimplementedError(
        absl::StrCat("header format ", metadata.format(), " is newer than this software"));
  }
  if (Problem p = header::CheckMetadata(metadata)) {
    return absl::DataLossError(absl::StrCat("header: ", *p));
  }
  if (!options.expected_build.is_nil() && metadata.build_id != options.expected_build) {
    return absl::DataLossError(absl::StrCat("header is of build ", metadata.build_id.ToString(),
                                            ", not ", options.expected_build.ToString()));
  }

  std::vector<Mapping> mappings;
  HeaderExtras extras;
  if (metadata.format() <= 3) {
    PEERCHUNK_ASSIGN_OR_RETURN(mappings, header::DecodePlain(metadata, reader));
  } else {
    PEERCHUNK_ASSIGN_OR_RETURN(auto decoded, header::DecodeCompressed(metadata, reader));
    std::tie(mappings, extras) = std::move(decoded);
  }
  if (Problem p = header::CheckMappingBounds(mappings)) {
    return absl::DataLossError(absl::StrCat("header: ", *p));
  }
  std::vector<std::string> violations = header::FindViolations(metadata, mappings);
  if (!violations.empty()) {
    if (metadata.format() >= 3) {
      return absl::DataLossError(absl::StrCat("header: ", violations.front()));
    }
    // So that routing means the same for every reader: the later of two at one offset wins.
    std::stable_sort(mappings.begin(), mappings.end(), AscendingByOffset);
  }
  if (Problem p = header::CheckExtras(metadata, mappings, extras)) {
    return absl::DataLossError(absl::StrCat("header: ", *p));
  }
  if (options.from_storage && extras.incomplete) {
    return absl::DataLossError("header in storage is marked incomplete");
  }
  return Header(metadata, std::move(mappings), std::move(extras), std::move(violations));
}

const BuildRecord* Header::FindBuild(const BuildId& build_id) const {
  return header::FindRecord(extras_.builds, build_id);
}

absl::StatusOr<Segment> Header::Route(uint64_t offset) const {
  if (offset >= metadata_.size) {
    return absl::OutOfRangeError(
        absl::StrCat("offset ", offset, " in a device of ", metadata_.size, " bytes"));
  }
  const auto next =
      std::upper_bound(mappings_.begin(), mappings_.end(), offset,
                       [](uint64_t wanted, const Mapping& m) { return wanted < m.offset; });
  if (next == mappings_.begin() || offset - (next - 1)->offset >= (next - 1)->length) {
    return absl::DataLossError(absl::StrCat("header of build ", metadata_.build_id.ToString(),
                                            " maps nothing at offset ", offset));
  }
  const Mapping& m = *(next - 1);
  const uint64_t shift = offset - m.offset;
  uint64_t length = std::min(m.length - shift, metadata_.size - offset);
  // Only with warnings() can the next one begin inside this one.
  if (next != mappings_.end()) length = std::min(length, next->offset - offset);
  return Segment{.build_id = m.build_id,
                 .storage_offset = m.is_zero() ? 0 : m.storage_offset + shift,
                 .length = length};
}

std::vector<Layer> Header::Layers() const {
  std::map<BuildId, Layer> layers;
  Layer* layer = nullptr;
  for (const Mapping& m : mappings_) {
    const uint64_t length = header::LengthOnDevice(metadata_, m);
    if (m.is_zero() || length == 0) continue;
    if (layer == nullptr || layer->build_id != m.build_id) {
      layer = &layers[m.build_id];
      layer->build_id = m.build_id;
    }
    layer->required_size = std::max(layer->required_size, m.storage_offset + length);
    layer->mapped_bytes += length;
  }
  std::vector<Layer> result;
  result.reserve(layers.size());
  for (const auto& [id, found] : layers) result.push_back(found);
  return result;
}

uint64_t Header::EncodedSize() const {
  if (metadata_.format() <= 3) {
    return header::kMetadataBytes +
           header::PlainEntries(metadata_, mappings_).size() * header::kRecordBytes;
  }
  return header::kMetadataBytes + header::kFramingBytes +
         header::InnerSize(metadata_.format(), mappings_, extras_.builds);
}

std::string Header::Encode() const {
  std::string bytes;
  if (metadata_.format() <= 3) {
    bytes.reserve(EncodedSize());
    header::AppendMetadata(bytes, metadata_);
    header::AppendRecords(bytes, header::PlainEntries(metadata_, mappings_));
  } else {
    header::AppendMetadata(bytes, metadata_);
    header::AppendCompressed(bytes, metadata_.format(), mappings_, extras_);
  }
  return bytes;
}

absl::StatusOr<Header> Header::WithVersion(uint64_t version) const {
  if (!warnings_.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("header: ", warnings_.front()));
  }
  HeaderMetadata metadata = metadata_;
  metadata.version = version;
  if (metadata.format() > 3) return Create(metadata, mappings_, extras_);
  if (extras_.incomplete) {
    return absl::FailedPreconditionError(
        absl::StrCat("format ", metadata.format(), " cannot mark a header as incomplete"));
  }
  for (const BuildRecord& record : extras_.builds) {
    if (record.compression != Compression::kNone) {
      return absl::FailedPreconditionError(absl::StrCat("format ", metadata.format(),
                                                        " cannot describe the compressed diff of ",
                                                        record.build_id.ToString()));
    }
  }
  return Create(metadata, mappings_);
}

absl::StatusOr<Header> Header::NextGeneration(const BuildId& build_id,
                                              const ChangedBlocks& blocks) const {
  if (!warnings_.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("parent's header: ", warnings_.front()));
  }
  if (metadata_.generation == std::numeric_limits<uint64_t>::max()) {
    return absl::InvalidArgumentError("parent is of the last generation");
  }
  const bool in_use = build_id == metadata_.build_id ||
                      std::any_of(mappings_.begin(), mappings_.end(), [&](const Mapping& m) {
                        return !m.is_zero() && m.build_id == build_id;
                      });
  if (in_use) {
    return absl::InvalidArgumentError(
        absl::StrCat("build ", build_id.ToString(), " is its own ancestor"));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(
      const std::vector<Mapping> diff,
      MakeDiffMappings(build_id, blocks, metadata_.block_size, metadata_.size));
  PEERCHUNK_ASSIGN_OR_RETURN(const std::vector<Mapping> merged, MergeMappings(mappings_, diff));

  HeaderMetadata metadata = metadata_;
  metadata.generation += 1;
  metadata.build_id = build_id;
  std::vector<Mapping> mappings = NormalizeMappings(merged);
  HeaderExtras extras;
  if (metadata.format() > 3) {
    extras.incomplete = true;
    extras.builds = header::TrimRecords(extras_.builds, mappings);
  }
  return Create(metadata, std::move(mappings), std::move(extras));
}

absl::StatusOr<Header> Header::WithOwnBuild(BuildRecord record) const {
  if (metadata_.format() <= 3) {
    return absl::FailedPreconditionError(
        absl::StrCat("format ", metadata_.format(), " has no records of builds"));
  }
  if (record.build_id != metadata_.build_id) {
    return absl::InvalidArgumentError(absl::StrCat("record is of build ",
                                                   record.build_id.ToString(), ", the header of ",
                                                   metadata_.build_id.ToString()));
  }
  HeaderExtras extras = extras_;
  extras.incomplete = false;
  const auto at =
      std::lower_bound(extras.builds.begin(), extras.builds.end(), record.build_id,
                       [](const BuildRecord& r, const BuildId& id) { return r.build_id < id; });
  if (at != extras.builds.end() && at->build_id == record.build_id) {
    *at = std::move(record);
  } else {
    extras.builds.insert(at, std::move(record));
  }
  return Create(metadata_, mappings_, std::move(extras));
}

}  // namespace peerchunk
