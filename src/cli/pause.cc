#include <fcntl.h>

#include <memory>

#include "base/byte_size.h"
#include "base/default_paths.h"
#include "cli/command.h"
#include "cli/control_client.h"
#include "cli/output.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"
#include "peerchunk/template/build_registry.h"

namespace peerchunk::cli {
namespace {

struct PauseFlags {
  std::string build;
  std::string folder;
  std::string snapfile;
  std::string metadata;
  std::string memfile_header;
  std::string rootfs_header;
  std::string memfile;
  std::string rootfs;
  bool sync = false;
};

absl::StatusOr<std::string> ReadWhole(const std::string& path, uint64_t limit) {
  PEERCHUNK_ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
  PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  if (size > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", size, " bytes; at most ", limit, " are taken"));
  }
  std::string bytes(size, '\0');
  const absl::StatusOr<size_t> got = file.ReadAt(0, absl::MakeSpan(bytes));
  if (!got.ok()) return Annotate(got.status(), path);
  bytes.resize(*got);
  return bytes;
}

// The build that a header says it belongs to.
absl::StatusOr<std::string> BuildOf(const std::string& header_path) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::string bytes, ReadWhole(header_path, kMaxHeaderFileBytes));
  const absl::StatusOr<Header> header = Header::Decode(bytes);
  if (!header.ok()) return Annotate(header.status(), header_path);
  return header->metadata().build_id.ToString();
}

// A file of the folder, unless it is named by its own flag; empty: what the build may lack, and
// does. Only a file that is not there counts as that: one that cannot be read is no reason to drop
// it.
absl::StatusOr<std::string> PathOf(const PauseFlags& flags, const std::string& named, FileKind kind,
                                   bool optional) {
  if (!named.empty()) return AbsolutePath(named);
  if (flags.folder.empty()) return "";
  std::string in_folder = AbsolutePath(flags.folder) + "/" + std::string(FileName(kind));
  if (!optional) return in_folder;
  const absl::Status opened = File::Open(in_folder, O_RDONLY).status();
  if (absl::IsNotFound(opened)) return "";
  PEERCHUNK_RETURN_IF_ERROR(opened);
  return in_folder;
}

// That a build is without memory has to be said, or a copy that lost it would pass for one.
absl::Status CheckSaysFilesystemOnly(const std::string& metadata_path) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::string bytes, ReadWhole(metadata_path, kMaxMetadataBytes));
  const Json metadata = Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (metadata.is_object() && metadata.value("filesystem_only", Json()) == Json(true)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("memfile, memfile.header and snapfile are missing, but ", metadata_path,
                   " does not say \"filesystem_only\": true: name the folder or the files that "
                   "have them, or let "
                   "it say so"));
}

absl::StatusOr<v1::PauseRequest> ToRequest(const PauseFlags& flags) {
  v1::PauseRequest request;
  PEERCHUNK_ASSIGN_OR_RETURN(*request.mutable_metadata_path(),
                             PathOf(flags, flags.metadata, FileKind::kMetadata, false));
  PEERCHUNK_ASSIGN_OR_RETURN(*request.mutable_rootfs_header_path(),
                             PathOf(flags, flags.rootfs_header, FileKind::kRootfsHeader, false));
  PEERCHUNK_ASSIGN_OR_RETURN(*request.mutable_rootfs_path(),
                             PathOf(flags, flags.rootfs, FileKind::kRootfs, false));
  PEERCHUNK_ASSIGN_OR_RETURN(*request.mutable_snapfile_path(),
                             PathOf(flags, flags.snapfile, FileKind::kSnapfile, true));
  PEERCHUNK_ASSIGN_OR_RETURN(*request.mutable_memfile_header_path(),
                             PathOf(flags, flags.memfile_header, FileKind::kMemfileHeader, true));
  PEERCHUNK_ASSIGN_OR_RETURN(*request.mutable_memfile_path(),
                             PathOf(flags, flags.memfile, FileKind::kMemfile, true));
  request.set_sync(flags.sync);
  if (request.rootfs_header_path().empty()) {
    return absl::InvalidArgumentError(
        "name the files to pause: --folder DIR with the six files, or --metadata, --rootfs, "
        "--rootfs-header and, unless it is a filesystem-only build, --snapfile, --memfile and "
        "--memfile-header");
  }
  request.set_build_id(flags.build);
  if (flags.build.empty()) {
    PEERCHUNK_ASSIGN_OR_RETURN(*request.mutable_build_id(), BuildOf(request.rootfs_header_path()));
  }
  if (request.memfile_path().empty() && request.memfile_header_path().empty() &&
      request.snapfile_path().empty() && !request.metadata_path().empty()) {
    PEERCHUNK_RETURN_IF_ERROR(CheckSaysFilesystemOnly(request.metadata_path()));
  }
  return request;
}

absl::Status Run(const PauseFlags& flags, const Invocation& invocation) {
  PEERCHUNK_ASSIGN_OR_RETURN(const v1::PauseRequest request, ToRequest(flags));
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  PEERCHUNK_ASSIGN_OR_RETURN(const v1::PauseResponse response,
                             client->Call(&v1::SandboxService::Stub::Pause, request));
  const v1::BuildInfo& build = response.build();
  if (invocation.json) {
    PrintJson(ToJson(build));
    return absl::OkStatus();
  }
  uint64_t bytes = 0;
  for (const v1::BuildFileInfo& file : build.files()) bytes += file.size();
  Print(absl::StrCat("paused ", build.build_id(), ": ", build.files_size(), " files, ",
                     HumanByteSize(static_cast<double>(bytes)), "; state ", build.state(),
                     ", served to peers, upload queued\n"));
  return absl::OkStatus();
}

}  // namespace

void AddPause(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<PauseFlags>();
  CLI::App* const command = app.add_subcommand(
      "pause", "Hand a snapshot's files to the daemon: served to peers at once, then uploaded");
  command->add_option("build", flags->build, "The build's id. Default: the one in its headers")
      ->type_name("BUILD_ID")
      ->check(kIsBuildId);
  command
      ->add_option("--folder", flags->folder,
                   "A folder with the build's files by their own names (as make-build writes one)")
      ->type_name("DIR");
  const auto file = [&](const std::string& flag, std::string& path, FileKind kind) {
    command->add_option(flag, path, "In place of " + std::string(FileName(kind)) + " in the folder")
        ->type_name("FILE");
  };
  file("--snapfile", flags->snapfile, FileKind::kSnapfile);
  file("--metadata", flags->metadata, FileKind::kMetadata);
  file("--memfile", flags->memfile, FileKind::kMemfile);
  file("--memfile-header", flags->memfile_header, FileKind::kMemfileHeader);
  file("--rootfs", flags->rootfs, FileKind::kRootfs);
  file("--rootfs-header", flags->rootfs_header, FileKind::kRootfsHeader);
  command->add_flag("--sync", flags->sync, "Return only when it is safe against a power cut");
  command->callback([flags, &invocation] {
    invocation.when_interrupted = "; what the daemon has begun, it ends: see peerchunk ls";
    invocation.run = [flags, &invocation] { return Run(*flags, invocation); };
  });
}

}  // namespace peerchunk::cli
