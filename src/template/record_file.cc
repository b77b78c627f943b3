#include "template/record_file.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <absl/time/time.h>
#include <nlohmann/json.hpp>

#include "base/parse_json.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

using nlohmann::json;

// 2: base, upload_token and ancestor_sources, which older records lack.
constexpr uint64_t kFormat = 2;
constexpr uint64_t kOldestFormat = 1;
constexpr std::string_view kBlocksMagic = "PCBLOCK1";

// Deterministic: keys are sorted. A reason with broken UTF-8 (from a foreign server) is mended.
std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::Status Damaged(std::string_view what) { return absl::DataLossError(AbslView(what)); }

std::optional<BuildState> ParseState(std::string_view name) {
  for (const BuildState state :
       {BuildState::kLocal, BuildState::kUploading, BuildState::kDurable, BuildState::kFailed}) {
    if (BuildStateName(state) == name) return state;
  }
  return std::nullopt;
}

std::string FormatPausedAt(absl::Time time) {
  return absl::FormatTime(absl::RFC3339_full, time, absl::UTCTimeZone());
}

json EncodeFile(FileKind kind, const FileRecord& file) {
  json encoded = {{"size", file.checksums->size},
                  {"crc32c", file.checksums->crc32c},
                  {"in_base", file.in_base}};
  if (kind == FileKind::kMetadata) encoded["blocks"] = file.checksums->block_crc32c;
  return encoded;
}

// Throws json's exceptions for what is missing or of the wrong type.
absl::StatusOr<RecordedBuild> DecodeFields(const json& record, const BuildId& id, uint64_t format) {
  RecordedBuild build;
  build.id = id;
  if (record.at("build_id").get<std::string>() != id.ToString()) {
    return Damaged("the record is another build's");
  }
  const std::optional<BuildState> state = ParseState(record.at("state").get<std::string>());
  if (!state) return Damaged("the record has an unknown state");
  build.status.state = *state;
  build.reason = record.at("reason").get<std::string>();
  build.upload_attempts = record.at("upload_attempts").get<uint64_t>();
  build.metadata_version = record.at("metadata_version").get<uint64_t>();
  build.metadata_version_in_base = record.at("metadata_version_in_base").get<uint64_t>();
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, record.at("paused_at").get<std::string>(),
                       &build.paused_at, &error)) {
    return Damaged("the record has no valid time");
  }
  for (const json& ancestor : record.at("ancestors")) {
    PEERCHUNK_ASSIGN_OR_RETURN(const BuildId parsed, BuildId::Parse(ancestor.get<std::string>()));
    build.ancestors.push_back(parsed);
  }
  if (format >= 2) {
    build.base = record.at("base").get<std::string>();
    build.upload_token = record.at("upload_token").get<std::string>();
    for (const auto& [name, addresses] : record.at("ancestor_sources").items()) {
      PEERCHUNK_ASSIGN_OR_RETURN(const BuildId parsed, BuildId::Parse(name));
      build.ancestor_sources[parsed] = addresses.get<std::vector<std::string>>();
    }
  }
  for (const auto& [name, file] : record.at("files").items()) {
    const std::optional<FileKind> kind = ParseFileName(name);
    if (!kind) return Damaged("the record has an unknown file");
    auto checksums = std::make_shared<FileChecksums>();
    checksums->size = file.at("size").get<uint64_t>();
    checksums->crc32c = file.at("crc32c").get<uint32_t>();
    if (*kind == FileKind::kMetadata) {
      checksums->block_crc32c = file.at("blocks").get<std::vector<uint32_t>>();
    }
    build.files[*kind] = {std::move(checksums), file.at("in_base").get<bool>()};
  }
  if (!build.has(FileKind::kMetadata)) return Damaged("the record has no metadata.json");
  return build;
}

template <typename T>
void Append(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
}

// Takes little-endian numbers off the front of `bytes`; nothing once they run out.
template <typename T>
std::optional<T> Take(std::string_view& bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * i));
  }
  bytes.remove_prefix(sizeof(T));
  return value;
}

bool AddsUp(const FileChecksums& sums) {
  if (sums.block_crc32c.size() != CeilDiv(sums.size, FileChecksums::kBlockBytes)) return false;
  uint32_t whole = 0;
  for (uint64_t i = 0; i < sums.block_crc32c.size(); ++i) {
    const uint64_t length =
        std::min(FileChecksums::kBlockBytes, sums.size - i * FileChecksums::kBlockBytes);
    whole = CombineCrc32c(whole, sums.block_crc32c[i], length);
  }
  return whole == sums.crc32c;
}

}  // namespace

std::string RecordedFileName(FileKind kind, uint64_t metadata_version) {
  std::string name(FileName(kind));
  if (kind == FileKind::kMetadata && metadata_version > 1) {
    absl::StrAppend(&name, ".", metadata_version);
  }
  return name;
}

std::string EncodeRecord(const RecordedBuild& build) {
  json record = {{"build_id", build.id.ToString()},
                 {"state", BuildStateName(build.status.state)},
                 {"reason", build.reason},
                 {"upload_attempts", build.upload_attempts},
                 {"metadata_version", build.metadata_version},
                 {"metadata_version_in_base", build.metadata_version_in_base},
                 {"paused_at", FormatPausedAt(build.paused_at)},
                 {"ancestors", json::array()},
                 {"ancestor_sources", json::object()},
                 {"base", build.base},
                 {"upload_token", build.upload_token},
                 {"files", json::object()}};
  for (const BuildId& ancestor : build.ancestors)
    record["ancestors"].push_back(ancestor.ToString());
  for (const auto& [ancestor, addresses] : build.ancestor_sources) {
    record["ancestor_sources"][ancestor.ToString()] = addresses;
  }
  for (const auto& [kind, file] : build.files) {
    record["files"][std::string(FileName(kind))] = EncodeFile(kind, file);
  }
  const std::string text = Dump(record);
  return absl::StrCat("{\"format\":", kFormat, ",\"crc32c\":", Crc32c(text), ",\"record\":", text,
                      "}\n");
}

absl::StatusOr<RecordedBuild> DecodeRecord(std::string_view bytes, const BuildId& id) {
  const json outer = ParseJson(bytes);
  try {
    if (outer.is_discarded()) return Damaged("the record is not JSON");
    const auto format = outer.at("format").get<uint64_t>();
    if (format < kOldestFormat || format > kFormat) {
      return absl::UnimplementedError(absl::StrCat("the record has format ", format,
                                                   ", this peerchunk reads ", kOldestFormat, " to ",
                                                   kFormat));
    }
    const json& record = outer.at("record");
    if (Crc32c(Dump(record)) != outer.at("crc32c").get<uint32_t>()) {
      return Damaged("the record does not match its checksum");
    }
    PEERCHUNK_ASSIGN_OR_RETURN(RecordedBuild build, DecodeFields(record, id, format));
    if (!AddsUp(*build.files[FileKind::kMetadata].checksums)) {
      return Damaged("the checksums of metadata.json do not add up");
    }
    return build;
  } catch (const json::exception& error) {
    return Damaged(absl::StrCat("the record is incomplete: ", error.what()));
  }
}

std::string EncodeBlocks(const RecordedBuild& build) {
  std::string out(kBlocksMagic);
  Append(out, static_cast<uint32_t>(build.files.size() - (build.has(FileKind::kMetadata) ? 1 : 0)));
  for (const auto& [kind, file] : build.files) {
    if (kind == FileKind::kMetadata) continue;
    Append(out, static_cast<uint8_t>(kind));
    Append(out, static_cast<uint64_t>(file.checksums->block_crc32c.size()));
    for (const uint32_t crc : file.checksums->block_crc32c) Append(out, crc);
  }
  Append(out, Crc32c(out));
  return out;
}

absl::Status DecodeBlocks(std::string_view bytes, RecordedBuild& build) {
  const absl::Status damaged = Damaged("blocks.crc is damaged");
  if (bytes.size() < kBlocksMagic.size() + 8 || !bytes.starts_with(kBlocksMagic)) return damaged;
  std::string_view tail = bytes.substr(bytes.size() - 4);
  bytes.remove_suffix(4);
  if (Take<uint32_t>(tail) != Crc32c(bytes)) return damaged;
  bytes.remove_prefix(kBlocksMagic.size());

  std::map<FileKind, std::shared_ptr<const FileChecksums>> complete;
  const std::optional<uint32_t> files = Take<uint32_t>(bytes);
  for (uint32_t i = 0; i < *files; ++i) {
    const std::optional<uint8_t> kind = Take<uint8_t>(bytes);
    const std::optional<uint64_t> count = Take<uint64_t>(bytes);
    if (!kind || !count || *count > bytes.size() / sizeof(uint32_t)) return damaged;
    const auto found = build.files.find(static_cast<FileKind>(*kind));
    if (found == build.files.end() || found->first == FileKind::kMetadata) return damaged;
    auto checksums = std::make_shared<FileChecksums>(*found->second.checksums);
    checksums->block_crc32c.clear();
    checksums->block_crc32c.reserve(*count);
    for (uint64_t block = 0; block < *count; ++block) {
      checksums->block_crc32c.push_back(*Take<uint32_t>(bytes));
    }
    if (!AddsUp(*checksums)) return damaged;
    if (!complete.emplace(found->first, std::move(checksums)).second) return damaged;
  }
  if (!bytes.empty() || complete.size() + 1 != build.files.size()) return damaged;
  for (auto& [kind, checksums] : complete) build.files[kind].checksums = std::move(checksums);
  return absl::OkStatus();
}

}  // namespace peerchunk
