#include "header/validate.h"

#include <algorithm>
#include <limits>

#include <absl/strings/str_cat.h>

#include "header/compressed_codec.h"

namespace peerchunk::header {
namespace {

constexpr size_t kMaxSpelledOut = 8;
constexpr uint64_t kMaxI64 = std::numeric_limits<int64_t>::max();
constexpr uint32_t kMaxI32 = std::numeric_limits<int32_t>::max();

Problem CheckFrames(const BuildRecord& record) {
  const std::string name = record.build_id.ToString();
  if (record.frames.size() > kMaxFramesPerBuild) {
    return absl::StrCat("build ", name, ": ", record.frames.size(), " frames, limit ",
                        kMaxFramesPerBuild);
  }
  if (record.compression == Compression::kNone && !record.frames.empty()) {
    return absl::StrCat("build ", name, ": frames of an uncompressed file");
  }
  const Frame* previous = nullptr;
  for (const Frame& frame : record.frames) {
    if (frame.size_uncompressed == 0 || frame.size_uncompressed > kMaxI32 ||
        frame.size_compressed == 0 || frame.size_compressed > kMaxI32 ||
        frame.start_uncompressed > kMaxI64 || frame.start_compressed > kMaxI64) {
      return absl::StrCat("build ", name, ": frame at ", frame.start_uncompressed,
                          " has an empty or negative field");
    }
    if (previous != nullptr && (frame.start_uncompressed < previous->end_uncompressed() ||
                                frame.start_compressed < previous->end_compressed())) {
      return absl::StrCat("build ", name, ": frame at ", frame.start_uncompressed,
                          " overlaps the one before it");
    }
    previous = &frame;
  }
  return std::nullopt;
}

Problem CheckBuilds(absl::Span<const BuildRecord> builds) {
  const BuildRecord* previous = nullptr;
  for (const BuildRecord& record : builds) {
    if (previous != nullptr && record.build_id <= previous->build_id) {
      return absl::StrCat("build ", record.build_id.ToString(), " is out of order");
    }
    if (record.file_size > kMaxI64) {
      return absl::StrCat("build ", record.build_id.ToString(), " has a negative size");
    }
    if (Problem p = CheckFrames(record)) return p;
    previous = &record;
  }
  return std::nullopt;
}

Problem CheckInsideDiffFiles(const HeaderMetadata& metadata, absl::Span<const Mapping> mappings,
                             absl::Span<const BuildRecord> builds) {
  if (builds.empty()) return std::nullopt;
  const BuildRecord* record = nullptr;
  for (const Mapping& m : mappings) {
    if (m.is_zero()) continue;
    if (record == nullptr || record->build_id != m.build_id) {
      record = FindRecord(builds, m.build_id);
    }
    if (record == nullptr) continue;
    if (m.storage_offset + LengthOnDevice(metadata, m) > record->file_size) {
      return absl::StrCat("mapping at ", m.offset, " reads [", m.storage_offset, ", +", m.length,
                          ") of build ", m.build_id.ToString(), ", whose file has ",
                          record->file_size, " bytes");
    }
  }
  return std::nullopt;
}

// What the columns of V5 cannot say.
Problem CheckColumns(absl::Span<const Mapping> mappings) {
  BuildTable table;
  for (const Mapping& m : mappings) {
    if (m.is_zero()) continue;
    if (m.storage_offset % kPageBytes != 0 ||
        m.storage_offset / kPageBytes > std::numeric_limits<uint32_t>::max()) {
      return absl::StrCat("mapping at ", m.offset, ": storage offset ", m.storage_offset,
                          " is not a number of blocks in 32 bits");
    }
    table.IndexOf(m.build_id);
  }
  if (table.builds().size() > kMaxBuildsInMapping) {
    return absl::StrCat(table.builds().size(), " builds in a mapping, limit ", kMaxBuildsInMapping);
  }
  return std::nullopt;
}

}  // namespace

Problem CheckMetadata(const HeaderMetadata& metadata) {
  if (metadata.format() < 1 || metadata.format() > 5) {
    return absl::StrCat("no header format ", metadata.format());
  }
  if (metadata.block_size == 0) return "block size 0";
  if (metadata.size > kMaxDeviceBytes) {
    return absl::StrCat("device of ", metadata.size, " bytes, limit ", kMaxDeviceBytes);
  }
  return std::nullopt;
}

Problem CheckMappingBounds(absl::Span<const Mapping> mappings) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  if (mappings.size() > kMaxMappings) {
    return absl::StrCat(mappings.size(), " mappings, limit ", kMaxMappings);
  }
  for (const Mapping& m : mappings) {
    if (m.length > kMax - m.offset || (!m.is_zero() && m.length > kMax - m.storage_offset)) {
      return absl::StrCat("mapping at ", m.offset, ", storage offset ", m.storage_offset,
                          ", length ", m.length, " overflows");
    }
  }
  return std::nullopt;
}

std::vector<std::string> FindViolations(const HeaderMetadata& metadata,
                                        absl::Span<const Mapping> mappings) {
  std::vector<std::string> found;
  uint64_t count = 0;
  const auto report = [&](const auto&... parts) {
    if (++count <= kMaxSpelledOut) found.push_back(absl::StrCat(parts...));
  };
  uint64_t end = 0;
  for (const Mapping& m : mappings) {
    if (m.offset > end) report("gap before the mapping at ", m.offset, ": nothing from ", end);
    if (m.offset < end) report("mapping at ", m.offset, " overlaps the one that ends at ", end);
    if (m.length == 0) report("mapping at ", m.offset, " is empty");
    if (m.length % kPageBytes != 0) {
      report("mapping at ", m.offset, ": length ", m.length, " is not a multiple of ", kPageBytes);
    }
    end = m.end();
  }
  if (const uint64_t expected = RoundUp(metadata.size, kPageBytes); end != expected) {
    report("mappings end at ", end, ", the device at ", expected);
  }
  if (count > kMaxSpelledOut)
    found.push_back(absl::StrCat("and ", count - kMaxSpelledOut, " more"));
  return found;
}

Problem CheckExtras(const HeaderMetadata& metadata, absl::Span<const Mapping> mappings,
                    const HeaderExtras& extras) {
  if (metadata.format() <= 3) {
    if (extras.builds.empty() && !extras.incomplete) return std::nullopt;
    return absl::StrCat("format ", metadata.format(), " has no builds section and no flags");
  }
  if (Problem p = CheckBuilds(extras.builds)) return p;
  if (Problem p = CheckInsideDiffFiles(metadata, mappings, extras.builds)) return p;
  if (metadata.format() == 5) {
    if (Problem p = CheckColumns(mappings)) return p;
  }
  const uint64_t inner = InnerSize(metadata.format(), mappings, extras.builds);
  if (inner > kMaxUncompressedHeaderBytes) {
    return absl::StrCat("uncompressed size ", inner, ", limit ", kMaxUncompressedHeaderBytes);
  }
  return std::nullopt;
}

Problem CheckAll(const HeaderMetadata& metadata, absl::Span<const Mapping> mappings,
                 const HeaderExtras& extras) {
  if (Problem p = CheckMetadata(metadata)) return p;
  if (Problem p = CheckMappingBounds(mappings)) return p;
  if (std::vector<std::string> found = FindViolations(metadata, mappings); !found.empty()) {
    return std::move(found.front());
  }
  return CheckExtras(metadata, mappings, extras);
}

uint64_t LengthOnDevice(const HeaderMetadata& metadata, const Mapping& m) {
  return m.offset >= metadata.size ? 0 : std::min(m.length, metadata.size - m.offset);
}

std::vector<Mapping> IdentityMappings(const HeaderMetadata& metadata) {
  if (metadata.size == 0) return {};
  return {{.offset = 0,
           .length = RoundUp(metadata.size, kPageBytes),
           .build_id = metadata.build_id,
           .storage_offset = 0}};
}

const BuildRecord* FindRecord(absl::Span<const BuildRecord> builds, const BuildId& build_id) {
  const auto it =
      std::lower_bound(builds.begin(), builds.end(), build_id,
                       [](const BuildRecord& r, const BuildId& id) { return r.build_id < id; });
  return it != builds.end() && it->build_id == build_id ? &*it : nullptr;
}

}  // namespace peerchunk::header
