#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "peerchunk/base/build_id.h"

namespace peerchunk {

// The six files of a build (docs/architecture.md, "Words"). A file is always named by this type,
// never by a path, so nothing foreign can name another file.
enum class FileKind : uint8_t {
  kSnapfile = 1,
  kMetadata = 2,
  kMemfileHeader = 3,
  kRootfsHeader = 4,
  kMemfile = 5,
  kRootfs = 6,
};

inline constexpr std::array<FileKind, 6> kAllFileKinds = {
    FileKind::kSnapfile,     FileKind::kMetadata, FileKind::kMemfileHeader,
    FileKind::kRootfsHeader, FileKind::kMemfile,  FileKind::kRootfs};

// "snapfile", "metadata.json", "memfile.header", "rootfs.ext4.header", "memfile", "rootfs.ext4".
std::string_view FileName(FileKind kind);
std::optional<FileKind> ParseFileName(std::string_view name);

// Seekable files (diffs) are read by range; the others are blobs, read whole.
constexpr bool IsSeekable(FileKind kind) {
  return kind == FileKind::kMemfile || kind == FileKind::kRootfs;
}
constexpr bool IsHeader(FileKind kind) {
  return kind == FileKind::kMemfileHeader || kind == FileKind::kRootfsHeader;
}
// The header that maps a device onto this diff. Only for seekable kinds.
constexpr FileKind HeaderOf(FileKind diff) {
  return diff == FileKind::kMemfile ? FileKind::kMemfileHeader : FileKind::kRootfsHeader;
}

// One file of one build: the identity that reads, pins and wire requests share.
struct BuildFileId {
  BuildId build;
  FileKind kind = FileKind::kSnapfile;

  // "<build id>/<file name>": the object's path in a bucket.
  std::string ObjectPath() const;
  // The inverse of ObjectPath; nothing for any other path.
  static std::optional<BuildFileId> FromObjectPath(std::string_view path);

  friend constexpr auto operator<=>(const BuildFileId&, const BuildFileId&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const BuildFileId& id) {
    return H::combine(std::move(state), id.build, id.kind);
  }
};

}  // namespace peerchunk
