#include "node/build_info.h"

#include <algorithm>
#include <string>

#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"

namespace peerchunk {
namespace {

NodeLayerInfo Describe(const Layer& mapped, FileKind diff, const TemplateCache& templates,
                       const PeerDirectory& directory) {
  NodeLayerInfo layer;
  layer.build = mapped.build_id;
  layer.diff = diff;
  layer.mapped_bytes = mapped.mapped_bytes;
  layer.sources = templates.SourcesOf(mapped.build_id);
  layer.bytes = directory.BytesOf({mapped.build_id, diff});
  return layer;
}

void AddDevice(const BuildId& id, FileKind diff, const Device& device, TemplateCache& templates,
               const PeerDirectory& directory, NodeBuildInfo& info) {
  info.zero_bytes_read += device.zero_bytes_read();
  for (const Layer& mapped : device.header().Layers()) {
    const BuildFileId file{mapped.build_id, diff};
    info.layers.push_back(Describe(mapped, diff, templates, directory));
    const bool known = std::any_of(info.files.begin(), info.files.end(),
                                   [&](const NodeFileInfo& f) { return f.kind == diff; });
    if (mapped.build_id != id || known) continue;
    if (const auto opened = templates.BuildStore().Lookup(file)) {
      info.files.push_back({diff, opened->size(), opened->crc32c(), false});
    }
  }
}

}  // namespace

void AddRecord(const RecordedBuild& record, NodeBuildInfo& info) {
  info.state = record.status.state;
  info.only_copy = !HeldByBase(record);
  info.reason = record.reason;
  info.upload_attempts = record.upload_attempts;
  for (const auto& [kind, file] : record.files) {
    info.files.push_back({kind, file.checksums->size, file.checksums->crc32c, file.in_base});
  }
}

void AddTemplate(const Template& loaded, TemplateCache& templates, const PeerDirectory& directory,
                 NodeBuildInfo& info) {
  if (info.files.empty()) {
    for (const FileKind kind : kAllFileKinds) {
      if (IsSeekable(kind)) continue;
      if (const auto bytes = loaded.BlobBytes(kind)) {
        info.files.push_back({kind, bytes->size(), std::nullopt, false});
      }
    }
  }
  if (const Device* memfile = loaded.Memfile()) {
    info.memfile_size = memfile->size();
    AddDevice(loaded.id(), FileKind::kMemfile, *memfile, templates, directory, info);
  }
  info.rootfs_size = loaded.Rootfs().size();
  AddDevice(loaded.id(), FileKind::kRootfs, loaded.Rootfs(), templates, directory, info);
}

absl::Status AddRecordedLayers(const RecordedBuild& record, BuildRegistry& registry,
                               const TemplateCache& templates, const PeerDirectory& directory,
                               NodeBuildInfo& info) {
  for (const FileKind diff : {FileKind::kMemfile, FileKind::kRootfs}) {
    if (!record.has(diff)) continue;
    PEERCHUNK_ASSIGN_OR_RETURN(const auto file, registry.OpenFile({record.id, HeaderOf(diff)}));
    std::string bytes(file->size(), '\0');
    PEERCHUNK_RETURN_IF_ERROR(file->ReadAt(0, absl::MakeSpan(bytes), {}));
    PEERCHUNK_ASSIGN_OR_RETURN(const Header header, Header::Decode(bytes, {}));
    (diff == FileKind::kMemfile ? info.memfile_size : info.rootfs_size) = header.metadata().size;
    for (const Layer& mapped : header.Layers()) {
      info.layers.push_back(Describe(mapped, diff, templates, directory));
    }
  }
  return absl::OkStatus();
}

void AddSources(const std::vector<KnownFile>& known, NodeBuildInfo& info) {
  for (const KnownFile& file : known) {
    auto found = std::find_if(info.files.begin(), info.files.end(),
                              [&](const NodeFileInfo& f) { return f.kind == file.kind; });
    if (found == info.files.end()) {
      found = info.files.insert(
          found, {.kind = file.kind, .size = file.size.value_or(0), .crc32c = file.crc32c});
    }
    found->bytes = file.bytes;
  }
}

bool Maps(const Template& loaded, const BuildId& build) {
  const auto reads = [&](const Device& device) {
    const auto layers = device.header().Layers();
    return std::any_of(layers.begin(), layers.end(),
                       [&](const Layer& layer) { return layer.build_id == build; });
  };
  return reads(loaded.Rootfs()) || (loaded.Memfile() != nullptr && reads(*loaded.Memfile()));
}

}  // namespace peerchunk
