#include "node/build_info.h"

#include <algorithm>

namespace peerchunk {
namespace {

void AddDevice(const BuildId& id, FileKind diff, const Device& device, TemplateCache& templates,
               const PeerDirectory& directory, NodeBuildInfo& info) {
  info.zero_bytes_read += device.zero_bytes_read();
  for (const Layer& mapped : device.header().Layers()) {
    const BuildFileId file{mapped.build_id, diff};
    NodeLayerInfo layer;
    layer.build = mapped.build_id;
    layer.diff = diff;
    layer.mapped_bytes = mapped.mapped_bytes;
    layer.sources = templates.SourcesOf(mapped.build_id);
    layer.bytes = directory.BytesOf(file);
    info.layers.push_back(std::move(layer));
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

bool Maps(const Template& loaded, const BuildId& build) {
  const auto reads = [&](const Device& device) {
    const auto layers = device.header().Layers();
    return std::any_of(layers.begin(), layers.end(),
                       [&](const Layer& layer) { return layer.build_id == build; });
  };
  return reads(loaded.Rootfs()) || (loaded.Memfile() != nullptr && reads(*loaded.Memfile()));
}

}  // namespace peerchunk
