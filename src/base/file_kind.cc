#include "peerchunk/base/file_kind.h"

namespace peerchunk {

std::string_view FileName(FileKind kind) {
  switch (kind) {
    case FileKind::kSnapfile:
      return "snapfile";
    case FileKind::kMetadata:
      return "metadata.json";
    case FileKind::kMemfileHeader:
      return "memfile.header";
    case FileKind::kRootfsHeader:
      return "rootfs.ext4.header";
    case FileKind::kMemfile:
      return "memfile";
    case FileKind::kRootfs:
      return "rootfs.ext4";
  }
  return "";
}

std::optional<FileKind> ParseFileName(std::string_view name) {
  for (const FileKind kind : kAllFileKinds) {
    if (FileName(kind) == name) return kind;
  }
  return std::nullopt;
}

std::string BuildFileId::ObjectPath() const {
  std::string path = build.ToString();
  path += '/';
  path += FileName(kind);
  return path;
}

std::optional<BuildFileId> BuildFileId::FromObjectPath(std::string_view path) {
  if (path.size() <= BuildId::kTextLength || path[BuildId::kTextLength] != '/') return std::nullopt;
  const absl::StatusOr<BuildId> build = BuildId::Parse(path.substr(0, BuildId::kTextLength));
  const std::optional<FileKind> kind = ParseFileName(path.substr(BuildId::kTextLength + 1));
  if (!build.ok() || !kind) return std::nullopt;
  return BuildFileId{*build, *kind};
}

}  // namespace peerchunk
