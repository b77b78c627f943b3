#include "header/compressed_codec.h"

#include <limits>
#include <type_traits>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "header/byte_writer.h"
#include "header/lz4_frame.h"
#include "header/plain_codec.h"
#include "peerchunk/base/status.h"

namespace peerchunk::header {
namespace {

constexpr uint8_t kIncompleteFlag = 1;
constexpr uint64_t kBuildRecordBytes = 16 + 8 + 32 + 4 + 4;  // before its frames
constexpr uint64_t kFrameBytes = 8 + 8 + 4 + 4;
constexpr uint64_t kMinColumnBytes = 4;  // one byte in each column

absl::Status Torn(const char* what) {
  return absl::DataLossError(absl::StrCat("header ends inside its ", what));
}

absl::Status TooMany(const char* what, uint64_t count, const ByteReader& reader) {
  return absl::DataLossError(
      absl::StrCat(count, " ", what, " in the ", reader.remaining(), " bytes that remain"));
}

// The numbers of one V5 entry, in blocks.
struct Columns {
  uint64_t offset_delta;
  uint64_t length;
  uint64_t storage_zigzag;
  uint64_t index;
};

// Calls `visit` with each entry that V5 writes, in order; returns the table of their builds.
template <typename Visitor>
BuildTable VisitColumns(absl::Span<const Mapping> mappings, Visitor&& visit) {
  BuildTable table;
  uint64_t offset = 0;
  uint64_t storage = 0;
  for (const Mapping& m : mappings) {
    if (m.is_zero()) continue;
    const uint64_t next_offset = m.offset / kPageBytes;
    const uint64_t next_storage = m.storage_offset / kPageBytes;
    visit(Columns{.offset_delta = next_offset - offset,
                  .length = m.length / kPageBytes,
                  .storage_zigzag = ZigZag(static_cast<int64_t>(next_storage - storage)),
                  .index = table.IndexOf(m.build_id)});
    offset = next_offset;
    storage = next_storage;
  }
  return table;
}

void AppendColumns(std::string& out, absl::Span<const Mapping> mappings) {
  std::string lengths;
  std::string storage;
  std::string indices;
  std::string offsets;
  uint32_t count = 0;
  const BuildTable table = VisitColumns(mappings, [&](const Columns& c) {
    ++count;
    AppendUvarint(offsets, c.offset_delta);
    AppendUvarint(lengths, c.length);
    AppendUvarint(storage, c.storage_zigzag);
    AppendUvarint(indices, c.index);
  });
  AppendU32(out, static_cast<uint32_t>(table.builds().size()));
  for (const BuildId& id : table.builds()) AppendBuildId(out, id);
  AppendU32(out, count);
  out.append(offsets).append(lengths).append(storage).append(indices);
}

void AppendBuilds(std::string& out, absl::Span<const BuildRecord> builds) {
  AppendU32(out, static_cast<uint32_t>(builds.size()));
  for (const BuildRecord& r : builds) {
    AppendBuildId(out, r.build_id);
    AppendU64(out, r.file_size);
    const std::array<uint8_t, 32> sha256 = r.sha256.value_or(std::array<uint8_t, 32>{});
    out.append(sha256.begin(), sha256.end());
    AppendU32(out, static_cast<uint32_t>(r.compression));
    AppendU32(out, static_cast<uint32_t>(r.frames.size()));
    for (const Frame& f : r.frames) {
      AppendU64(out, f.start_uncompressed);
      AppendU64(out, f.start_compressed);
      AppendU32(out, f.size_uncompressed);
      AppendU32(out, f.size_compressed);
    }
  }
}

absl::Status DecodeBuild(ByteReader& reader, BuildRecord& record) {
  std::array<uint8_t, 32> sha256;
  uint32_t compression = 0;
  uint32_t frames = 0;
  if (!reader.ReadBuildId(record.build_id) || !reader.ReadU64(record.file_size) ||
      !reader.ReadBytes(sha256) || !reader.ReadU32(compression) || !reader.ReadU32(frames)) {
    return Torn("builds");
  }
  if (sha256 != std::array<uint8_t, 32>{}) record.sha256 = sha256;
  if (compression > static_cast<uint32_t>(Compression::kLz4)) {
    return absl::DataLossError(absl::StrCat("no compression ", compression));
  }
  record.compression = static_cast<Compression>(compression);
  if (frames > kMaxFramesPerBuild || frames > reader.remaining() / kFrameBytes) {
    return TooMany("frames", frames, reader);
  }
  record.frames.resize(frames);
  for (Frame& f : record.frames) {
    reader.ReadU64(f.start_uncompressed);
    reader.ReadU64(f.start_compressed);
    reader.ReadU32(f.size_uncompressed);
    reader.ReadU32(f.size_compressed);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BuildRecord>> DecodeBuilds(ByteReader& reader) {
  uint32_t count = 0;
  if (!reader.ReadU32(count)) return Torn("builds");
  if (count > reader.remaining() / kBuildRecordBytes) return TooMany("builds", count, reader);
  std::vector<BuildRecord> builds(count);
  for (BuildRecord& record : builds) PEERCHUNK_RETURN_IF_ERROR(DecodeBuild(reader, record));
  return builds;
}

// A column of `count` numbers goes to `set(i, value)`, which says whether the value is allowed.
template <typename Setter>
absl::Status DecodeColumn(ByteReader& reader, uint32_t count, const char* name, Setter&& set) {
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t value = 0;
    if (!reader.ReadUvarint(value)) return Torn(name);
    if (!set(i, value)) {
      return absl::DataLossError(absl::StrCat("entry ", i, ": wrong value in its ", name));
    }
  }
  return absl::OkStatus();
}

// Puts back the zeros that V5 leaves out, up to `blocks`; the entries are in order and inside.
absl::StatusOr<std::vector<Mapping>> FillGaps(const std::vector<Mapping>& entries,
                                              uint64_t blocks) {
  const uint64_t size = blocks * kPageBytes;
  uint64_t end = 0;
  uint64_t gaps = 0;
  for (const Mapping& m : entries) {
    if (m.offset != end) ++gaps;
    end = m.end();
  }
  if (end != size) ++gaps;
  if (gaps == 0) return entries;
  if (entries.size() + gaps > kMaxMappings) {
    return absl::DataLossError(
        absl::StrCat(entries.size() + gaps, " mappings, limit ", kMaxMappings));
  }
  std::vector<Mapping> filled;
  filled.reserve(entries.size() + gaps);
  const auto fill_to = [&](uint64_t offset) {
    const uint64_t from = filled.empty() ? 0 : filled.back().end();
    if (from != offset) filled.push_back({.offset = from, .length = offset - from});
  };
  for (const Mapping& m : entries) {
    fill_to(m.offset);
    filled.push_back(m);
  }
  fill_to(size);
  return filled;
}

absl::StatusOr<std::vector<Mapping>> DecodeColumns(ByteReader& reader, uint64_t device_size) {
  uint32_t builds = 0;
  if (!reader.ReadU32(builds)) return Torn("table of builds");
  if (builds > kMaxBuildsInMapping || builds > reader.remaining() / BuildId::kBytes) {
    return TooMany("builds", builds, reader);
  }
  std::vector<BuildId> table(builds);
  for (BuildId& id : table) {
    reader.ReadBuildId(id);
    if (id.is_nil()) return absl::DataLossError("table of builds names the nil build");
  }
  uint32_t count = 0;
  if (!reader.ReadU32(count)) return Torn("mapping");
  if (count > kMaxMappings || count > reader.remaining() / kMinColumnBytes) {
    return TooMany("mappings", count, reader);
  }

  const uint64_t blocks = CeilDiv(device_size, kPageBytes);
  std::vector<Mapping> entries(count);
  uint64_t offset = 0;
  PEERCHUNK_RETURN_IF_ERROR(DecodeColumn(reader, count, "offset", [&](uint32_t i, uint64_t delta) {
    if (delta >= blocks - offset || (i > 0 && delta == 0)) return false;
    offset += delta;
    entries[i].offset = offset * kPageBytes;
    return true;
  }));
  PEERCHUNK_RETURN_IF_ERROR(DecodeColumn(reader, count, "length", [&](uint32_t i, uint64_t length) {
    const uint64_t end = i + 1 < count ? entries[i + 1].offset / kPageBytes : blocks;
    if (length == 0 || length > end - entries[i].offset / kPageBytes) return false;
    entries[i].length = length * kPageBytes;
    return true;
  }));
  int64_t storage = 0;
  PEERCHUNK_RETURN_IF_ERROR(
      DecodeColumn(reader, count, "storage offset", [&](uint32_t i, uint64_t zigzag) {
        constexpr int64_t kMax = std::numeric_limits<uint32_t>::max();
        const int64_t delta = UnZigZag(zigzag);
        if (delta < -kMax || delta > kMax) return false;
        storage += delta;
        if (storage < 0 || storage > kMax) return false;
        entries[i].storage_offset = static_cast<uint64_t>(storage) * kPageBytes;
        return true;
      }));
  PEERCHUNK_RETURN_IF_ERROR(
      DecodeColumn(reader, count, "build index", [&](uint32_t i, uint64_t index) {
        if (index >= table.size()) return false;
        entries[i].build_id = table[index];
        return true;
      }));
  return FillGaps(entries, blocks);
}

}  // namespace

uint32_t BuildTable::IndexOf(const BuildId& id) {
  if (last_ < builds_.size() && builds_[last_] == id) return last_;
  const auto [it, inserted] = index_.try_emplace(id, static_cast<uint32_t>(builds_.size()));
  if (inserted) builds_.push_back(id);
  last_ = it->second;
  return last_;
}

uint64_t InnerSize(uint16_t format, absl::Span<const Mapping> mappings,
                   absl::Span<const BuildRecord> builds) {
  uint64_t size = 4 + builds.size() * kBuildRecordBytes;
  for (const BuildRecord& r : builds) size += r.frames.size() * kFrameBytes;
  if (format == 4) return size + 4 + mappings.size() * kRecordBytes;
  const BuildTable table = VisitColumns(mappings, [&](const Columns& c) {
    size += UvarintSize(c.offset_delta) + UvarintSize(c.length) + UvarintSize(c.storage_zigzag) +
            UvarintSize(c.index);
  });
  return size + 4 + table.builds().size() * BuildId::kBytes + 4;
}

std::string EncodeInner(uint16_t format, absl::Span<const Mapping> mappings,
                        absl::Span<const BuildRecord> builds) {
  std::string inner;
  AppendBuilds(inner, builds);
  if (format == 4) {
    AppendU32(inner, static_cast<uint32_t>(mappings.size()));
    AppendRecords(inner, mappings);
  } else {
    AppendColumns(inner, mappings);
  }
  return inner;
}

void AppendCompressed(std::string& out, uint16_t format, absl::Span<const Mapping> mappings,
                      const HeaderExtras& extras) {
  const std::string inner = EncodeInner(format, mappings, extras.builds);
  AppendU8(out, extras.incomplete ? kIncompleteFlag : 0);
  AppendU32(out, static_cast<uint32_t>(inner.size()));
  AppendLz4Frame(out, inner);
}

absl::StatusOr<std::pair<std::vector<Mapping>, HeaderExtras>> DecodeCompressed(
    const HeaderMetadata& metadata, ByteReader& reader) {
  uint8_t flags = 0;
  uint32_t size = 0;
  if (!reader.ReadU8(flags) || !reader.ReadU32(size)) return Torn("framing");
  if ((flags & ~kIncompleteFlag) != 0) {
    return absl::UnimplementedError(absl::StrCat("header has unknown flags ", flags));
  }
  if (size > kMaxUncompressedHeaderBytes) {
    return absl::DataLossError(
        absl::StrCat("uncompressed size ", size, ", limit ", kMaxUncompressedHeaderBytes));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const std::string inner, DecodeLz4Frame(reader.rest(), size));

  ByteReader in(inner);
  std::pair<std::vector<Mapping>, HeaderExtras> result;
  auto& [mappings, extras] = result;
  extras.incomplete = (flags & kIncompleteFlag) != 0;
  PEERCHUNK_ASSIGN_OR_RETURN(extras.builds, DecodeBuilds(in));
  if (metadata.format() == 4) {
    uint32_t count = 0;
    if (!in.ReadU32(count)) return Torn("mapping");
    PEERCHUNK_ASSIGN_OR_RETURN(mappings, DecodeRecords(in, count));
  } else {
    PEERCHUNK_ASSIGN_OR_RETURN(mappings, DecodeColumns(in, metadata.size));
  }
  if (in.remaining() != 0) {
    return absl::DataLossError(absl::StrCat(in.remaining(), " bytes after the mapping"));
  }
  return result;
}

}  // namespace peerchunk::header
