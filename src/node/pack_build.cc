#include "node/pack_build.h"

#include <fcntl.h>

#include <filesystem>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"
#include "peerchunk/header/mapping.h"

namespace peerchunk {
namespace {

constexpr uint64_t kReadBytes = 4 * kMiB;  // A multiple of every block size.

absl::StatusOr<std::string> ReadWhole(const std::string& path, uint64_t limit) {
  const absl::StatusOr<File> file = File::Open(path, O_RDONLY);
  if (!file.ok()) return Annotate(file.status(), path);
  PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > limit) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has more than ", limit, " bytes"));
  }
  std::string bytes(size, '\0');
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, file->ReadAt(0, absl::MakeSpan(bytes)));
  bytes.resize(got);
  return bytes;
}

// A raw image read block by block, with the parent's beside it.
class ImagePacker {
 public:
  ImagePacker(const PackOptions& options, FileKind kind, const File& out)
      : options_(options), out_(out), packed_{.kind = kind} {}

  // Writes the diff and the header into the folder.
  absl::StatusOr<PackedDiff> Run(const std::string& image, const std::string& parent_image,
                                 uint64_t block_bytes) {
    PEERCHUNK_RETURN_IF_ERROR(Open(image, parent_image));
    PEERCHUNK_ASSIGN_OR_RETURN(diff_,
                               out_.OpenAt(FileName(packed_.kind), O_WRONLY | O_CREAT | O_EXCL));
    const uint64_t blocks = CeilDiv(packed_.device_bytes, block_bytes);
    const uint64_t per_read = kReadBytes / block_bytes;
    std::vector<char> buffer(kReadBytes);
    std::vector<char> parent_buffer(parent_ ? kReadBytes : 0);
    for (uint64_t first = 0; first < blocks; first += per_read) {
      if (options_.cancellation.stop_requested()) return absl::CancelledError("interrupted");
      const uint64_t offset = first * block_bytes;
      PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, image_.ReadAt(offset, absl::MakeSpan(buffer)));
      if (got < std::min(kReadBytes, packed_.device_bytes - offset)) {
        return absl::FailedPreconditionError(image + " shrank while it was read");
      }
      if (parent_) {
        PEERCHUNK_RETURN_IF_ERROR(parent_->ReadAt(offset, absl::MakeSpan(parent_buffer)));
      }
      for (uint64_t at = 0; at < got; at += block_bytes) {
        const size_t length = std::min<uint64_t>(block_bytes, got - at);
        const std::string_view block(buffer.data() + at, length);
        const std::string_view before =
            parent_ ? std::string_view(parent_buffer.data() + at, length) : std::string_view();
        PEERCHUNK_RETURN_IF_ERROR(Add(first + at / block_bytes, block, before));
      }
    }
    PEERCHUNK_RETURN_IF_ERROR(WriteHeader(block_bytes));
    return packed_;
  }

 private:
  absl::Status Open(const std::string& image, const std::string& parent_image) {
    absl::StatusOr<File> opened = File::Open(image, O_RDONLY);
    if (!opened.ok()) return Annotate(opened.status(), image);
    image_ = *std::move(opened);
    PEERCHUNK_ASSIGN_OR_RETURN(packed_.device_bytes, image_.Size());
    if (packed_.device_bytes == 0) return absl::InvalidArgumentError(image + " is empty");
    if (packed_.device_bytes % kPageBytes != 0) {
      return absl::InvalidArgumentError(absl::StrCat(image, " has ", packed_.device_bytes,
                                                     " bytes, which is no multiple of 4096"));
    }
    if (options_.parent_folder.empty()) return absl::OkStatus();
    absl::StatusOr<File> parent = File::Open(parent_image, O_RDONLY);
    if (!parent.ok()) return Annotate(parent.status(), parent_image);
    PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t parent_bytes, parent->Size());
    if (parent_bytes != packed_.device_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(image, " has ", packed_.device_bytes,
                                                     " bytes, but its parent ", parent_image,
                                                     " has ", parent_bytes));
    }
    parent_ = *std::move(parent);
    return absl::OkStatus();
  }

  absl::Status Add(uint64_t index, std::string_view block, std::string_view before) {
    if (parent_ && block == before) {
      packed_.unchanged_bytes += block.size();
      return absl::OkStatus();
    }
    if (IsAllZero(block)) {
      packed_.zero_bytes += block.size();
      blocks_.zeroed.push_back(index);
      return absl::OkStatus();
    }
    blocks_.dirty.push_back(index);
    PEERCHUNK_RETURN_IF_ERROR(diff_.WriteAt(packed_.diff_bytes, block));
    packed_.diff_bytes += block.size();
    return absl::OkStatus();
  }

  absl::Status WriteHeader(uint64_t block_bytes) {
    const FileKind kind = HeaderOf(packed_.kind);
    PEERCHUNK_ASSIGN_OR_RETURN(const Header header, MakeHeader(kind, block_bytes));
    packed_.generation = header.metadata().generation;
    PEERCHUNK_ASSIGN_OR_RETURN(const File file,
                               out_.OpenAt(FileName(kind), O_WRONLY | O_CREAT | O_EXCL));
    return file.WriteAt(0, header.Encode());
  }

  absl::StatusOr<Header> MakeHeader(FileKind kind, uint64_t block_bytes) const {
    if (!parent_) {
      PEERCHUNK_ASSIGN_OR_RETURN(
          const std::vector<Mapping> mappings,
          MakeDiffMappings(options_.build, blocks_, block_bytes, packed_.device_bytes));
      return Header::Create({.version = 3,
                             .block_size = block_bytes,
                             .size = packed_.device_bytes,
                             .generation = 0,
                             .build_id = options_.build,
                             .base_build_id = options_.build},
                            NormalizeMappings(mappings));
    }
    const std::string path = options_.parent_folder + "/" + std::string(FileName(kind));
    PEERCHUNK_ASSIGN_OR_RETURN(const std::string bytes, ReadWhole(path, kMaxHeaderFileBytes));
    const absl::StatusOr<Header> parent = Header::Decode(bytes);
    if (!parent.ok()) return Annotate(parent.status(), path);
    if (parent->block_size() != block_bytes || parent->size() != packed_.device_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " maps ", parent->size(), " bytes in blocks of ", parent->block_size(),
                       "; the image has ", packed_.device_bytes, " in blocks of ", block_bytes));
    }
    PEERCHUNK_ASSIGN_OR_RETURN(const Header child, parent->NextGeneration(options_.build, blocks_));
    return child.WithVersion(3);
  }

  const PackOptions& options_;
  const File& out_;
  PackedDiff packed_;
  File image_;
  std::optional<File> parent_;
  File diff_;
  ChangedBlocks blocks_;
};

// Copied, never linked: the VMM may write its next snapshot to the same path.
absl::Status CopySnapfile(const std::string& path, const File& out) {
  const absl::StatusOr<File> snapfile = File::Open(path, O_RDONLY);
  if (!snapfile.ok()) return Annotate(snapfile.status(), path);
  PEERCHUNK_ASSIGN_OR_RETURN(
      const File copy, out.OpenAt(FileName(FileKind::kSnapfile), O_WRONLY | O_CREAT | O_EXCL));
  std::vector<char> buffer(kReadBytes);
  for (uint64_t offset = 0;; offset += buffer.size()) {
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, snapfile->ReadAt(offset, absl::MakeSpan(buffer)));
    PEERCHUNK_RETURN_IF_ERROR(copy.WriteAt(offset, std::string_view(buffer.data(), got)));
    if (got < buffer.size()) return absl::OkStatus();
  }
}

std::string Metadata(const PackOptions& options) {
  nlohmann::ordered_json json = {{"version", 2},
                                 {"template",
                                  {{"build_id", options.build.ToString()},
                                   {"kernel_version", options.kernel_version},
                                   {"firecracker_version", options.firecracker_version}}},
                                 {"context", nlohmann::ordered_json::object()}};
  json["filesystem_only"] = options.memfile.empty();
  return json.dump() + "\n";
}

absl::StatusOr<PackedBuild> PackInto(const PackOptions& options, const File& out) {
  PackedBuild packed{.build = options.build};
  if (!options.memfile.empty()) {
    PEERCHUNK_ASSIGN_OR_RETURN(
        const PackedDiff diff,
        ImagePacker(options, FileKind::kMemfile, out)
            .Run(options.memfile, options.parent_memfile, options.memfile_block_bytes));
    packed.diffs.push_back(diff);
    PEERCHUNK_RETURN_IF_ERROR(CopySnapfile(options.snapfile, out));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const PackedDiff diff,
                             ImagePacker(options, FileKind::kRootfs, out)
                                 .Run(options.rootfs, options.parent_rootfs, kPageBytes));
  packed.diffs.push_back(diff);
  PEERCHUNK_ASSIGN_OR_RETURN(
      const File metadata, out.OpenAt(FileName(FileKind::kMetadata), O_WRONLY | O_CREAT | O_EXCL));
  PEERCHUNK_RETURN_IF_ERROR(metadata.WriteAt(0, Metadata(options)));
  return packed;
}

absl::Status CheckPaths(const PackOptions& options) {
  if (options.memfile.empty() != options.snapfile.empty()) {
    return absl::InvalidArgumentError("a memfile and a snapfile come both or not at all");
  }
  const bool child = !options.parent_folder.empty();
  if (child != !options.parent_rootfs.empty()) {
    return absl::InvalidArgumentError(
        "a child needs its parent's folder (--parent-folder) and raw images (--parent-rootfs, "
        "--parent-memfile)");
  }
  if (!options.parent_memfile.empty() != (child && !options.memfile.empty())) {
    return absl::InvalidArgumentError(
        "the parent's memfile (--parent-memfile) goes with a memfile and a parent's folder");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PackedBuild> PackBuild(const PackOptions& options) {
  PEERCHUNK_RETURN_IF_ERROR(CheckPaths(options));
  std::error_code error;
  std::filesystem::create_directories(options.out_folder, error);
  const absl::StatusOr<File> out = File::Open(options.out_folder, O_RDONLY | O_DIRECTORY);
  if (!out.ok()) return Annotate(out.status(), options.out_folder);
  for (const FileKind kind : kAllFileKinds) {
    PEERCHUNK_ASSIGN_OR_RETURN(const bool there, out->Contains(FileName(kind)));
    if (there) {
      return absl::AlreadyExistsError(absl::StrCat(
          options.out_folder, "/", AbslView(FileName(kind)), " is there: choose an empty folder"));
    }
  }
  absl::StatusOr<PackedBuild> packed = PackInto(options, *out);
  if (!packed.ok()) {
    for (const FileKind kind : kAllFileKinds) out->Remove(FileName(kind)).IgnoreError();
  }
  return packed;
}

}  // namespace peerchunk
