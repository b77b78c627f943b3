#include "daemon/build_info_message.h"

namespace peerchunk {

v1::BuildInfo ToMessage(const NodeBuildInfo& info, const std::string& mount_path) {
  v1::BuildInfo message;
  message.set_build_id(info.id.ToString());
  message.set_state(info.state != BuildState::kUnknown ? std::string(BuildStateName(info.state))
                    : info.loaded_or_recorded          ? "CACHED"
                                                       : "FETCHED");
  message.set_reason(info.reason);
  message.set_upload_attempts(info.upload_attempts);
  for (const NodeFileInfo& file : info.files) {
    v1::BuildFileInfo& out = *message.add_files();
    out.set_name(std::string(FileName(file.kind)));
    out.set_size(file.size);
    out.set_in_base(file.in_base);
    if (file.crc32c) out.set_crc32c(*file.crc32c);
    out.set_bytes_from_peer(file.bytes.peer);
    out.set_bytes_from_base(file.bytes.base);
    out.set_bytes_wasted(file.bytes.wasted);
  }
  for (const NodeLayerInfo& layer : info.layers) {
    v1::LayerInfo& out = *message.add_layers();
    out.set_build_id(layer.build.ToString());
    out.set_file(std::string(FileName(layer.diff)));
    out.set_mapped_bytes(layer.mapped_bytes);
    for (const std::string& source : layer.sources) out.add_source_addresses(source);
    out.set_bytes_from_peer(layer.bytes.peer);
    out.set_bytes_from_base(layer.bytes.base);
    out.set_bytes_wasted(layer.bytes.wasted);
  }
  message.set_mount_path(mount_path);
  message.set_memfile_size(info.memfile_size);
  message.set_rootfs_size(info.rootfs_size);
  message.set_bytes_zero(info.zero_bytes_read);
  return message;
}

}  // namespace peerchunk
