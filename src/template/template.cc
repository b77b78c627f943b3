#include "peerchunk/template/template.h"

namespace peerchunk {

std::shared_ptr<const std::string> Template::BlobBytes(FileKind kind) const {
  switch (kind) {
    case FileKind::kSnapfile:
      return parts_.snapfile;
    case FileKind::kMetadata:
      return parts_.metadata;
    case FileKind::kMemfileHeader:
      return parts_.memfile_header;
    case FileKind::kRootfsHeader:
      return parts_.rootfs_header;
    case FileKind::kMemfile:
    case FileKind::kRootfs:
      return nullptr;
  }
  return nullptr;
}

}  // namespace peerchunk
