#include "template/snapshot_check.h"

#include <sys/stat.h>

#include <cerrno>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "base/parse_json.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

std::string Named(const SnapshotFiles& files, FileKind kind) {
  return absl::StrCat(AbslView(FileName(kind)), " (", files.paths.at(kind), ")");
}

absl::Status CheckHeader(const BuildId& id, const SnapshotFiles& files, const File& folder,
                         FileKind diff, uint64_t diff_size, std::set<BuildId>& layers) {
  const FileKind kind = HeaderOf(diff);
  PEERCHUNK_ASSIGN_OR_RETURN(const std::string bytes,
                             folder.ReadSmallFile(FileName(kind), MaxBlobBytes(kind)));
  DecodeOptions options;
  options.expected_build = id;
  const absl::StatusOr<Header> header = Header::Decode(bytes, options);
  if (!header.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Named(files, kind), ": ", header.status().message(),
                     "; hand over the header that was written for this build"));
  }
  // It would be uploaded as it is, and no reader takes such a header from storage.
  if (header->incomplete()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Named(files, kind),
                     ": is marked incomplete, its build's upload pending; hand "
                     "over the complete one, with the record of this build's diff"));
  }
  if (const absl::Status plain = CheckUncompressed(*header); !plain.ok()) {
    return Annotate(plain, Named(files, kind));
  }
  for (const Layer& layer : header->Layers()) {
    layers.insert(layer.build_id);
    if (layer.build_id == id && layer.required_size > diff_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          Named(files, kind), ": maps ", layer.required_size, " bytes of this build, but ",
          Named(files, diff), " has ", diff_size,
          "; hand over the diff and the header of the same pause, completely written"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckUncompressed(const Header& header) {
  for (const Layer& layer : header.Layers()) {
    const BuildRecord* record = header.FindBuild(layer.build_id);
    if (record == nullptr || record->compression == Compression::kNone) continue;
    return absl::UnimplementedError(
        absl::StrCat("the diff of build ", layer.build_id.ToString(), " is stored compressed (",
                     record->compression == Compression::kZstd ? "zstd" : "lz4",
                     "), which cannot be read here"));
  }
  return absl::OkStatus();
}

absl::Status CheckSnapshotPaths(const SnapshotFiles& files) {
  for (const FileKind kind : {FileKind::kMetadata, FileKind::kRootfsHeader, FileKind::kRootfs}) {
    if (!files.paths.contains(kind)) {
      return absl::InvalidArgumentError(absl::StrCat(
          AbslView(FileName(kind)),
          " is missing: every snapshot has metadata.json, rootfs.ext4.header and rootfs.ext4"));
    }
  }
  const bool has_memory = files.paths.contains(FileKind::kMemfile);
  for (const FileKind kind : {FileKind::kMemfileHeader, FileKind::kSnapfile}) {
    if (files.paths.contains(kind) != has_memory) {
      return absl::InvalidArgumentError(absl::StrCat(
          AbslView(FileName(kind)), has_memory ? " is missing" : " comes without memfile",
          ": memfile, memfile.header and snapfile come all three, or none of them for a "
          "filesystem-only snapshot"));
    }
  }
  for (const auto& entry : files.paths) {
    const FileKind kind = entry.first;
    const std::string& path = entry.second;
    const auto refuse = [&](std::string_view why) {
      return absl::InvalidArgumentError(absl::StrCat(Named(files, kind), ": ", AbslView(why)));
    };
    if (path.empty() || path.front() != '/') return refuse("give an absolute path");
    struct stat info = {};
    if (stat(path.c_str(), &info) != 0) {
      return refuse(std::string(ErrnoStatus(errno, "cannot be used").message()));
    }
    if (!S_ISREG(info.st_mode)) return refuse("not a regular file");
    if (!IsSeekable(kind) && static_cast<uint64_t>(info.st_size) > MaxBlobBytes(kind)) {
      return refuse(absl::StrCat("has ", info.st_size, " bytes; at most ", MaxBlobBytes(kind),
                                 " could be restored"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMetadata(std::string_view bytes, const BuildId& id, bool has_memory) {
  using nlohmann::json;
  const json metadata = ParseJson(bytes);
  if (!metadata.is_object()) return absl::InvalidArgumentError("not a JSON object");
  if (const auto found = metadata.find("template"); found != metadata.end() && found->is_object()) {
    const auto named = found->find("build_id");
    if (named != found->end() && *named != json(id.ToString())) {
      return absl::InvalidArgumentError(absl::StrCat("template.build_id is ", named->dump(),
                                                     ", but the build is ", id.ToString()));
    }
  }
  const auto said = metadata.find("filesystem_only");
  const bool filesystem_only = said != metadata.end() && *said == json(true);
  if (filesystem_only && has_memory) {
    return absl::InvalidArgumentError(
        "filesystem_only is true, but the snapshot has memfile, memfile.header and snapfile");
  }
  if (!filesystem_only && !has_memory) {
    return absl::InvalidArgumentError(
        absl::StrCat("filesystem_only is ", said == metadata.end() ? "not set" : said->dump(),
                     ", but the snapshot lacks memfile, memfile.header and snapfile"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BuildId>> CheckSnapshot(const BuildId& id, const SnapshotFiles& files,
                                                   const File& folder,
                                                   const std::map<FileKind, FileRecord>& records) {
  std::set<BuildId> layers;
  for (const auto& [kind, record] : records) {
    if (!IsSeekable(kind)) continue;
    PEERCHUNK_RETURN_IF_ERROR(CheckHeader(id, files, folder, kind, record.checksums->size, layers));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(
      const std::string metadata,
      folder.ReadSmallFile(FileName(FileKind::kMetadata), MaxBlobBytes(FileKind::kMetadata)));
  const absl::Status checked = CheckMetadata(metadata, id, records.contains(FileKind::kMemfile));
  if (!checked.ok()) return Annotate(checked, Named(files, FileKind::kMetadata));
  layers.erase(id);
  return std::vector<BuildId>(layers.begin(), layers.end());
}

}  // namespace peerchunk
