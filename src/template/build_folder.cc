#include "template/build_folder.h"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "base/logging.h"
#include "base/rename.h"
#include "peerchunk/base/status.h"
#include "template/record_file.h"
#include "template/snapshot_check.h"

namespace peerchunk {
namespace {

// Block checksums that cannot be read are made again, and believed where they add up to what the
// record says of the whole file.
absl::Status RestoreBlocks(const File& folder, RecordedBuild& build) {
  for (auto& [kind, record] : build.files) {
    if (kind == FileKind::kMetadata) continue;
    PEERCHUNK_ASSIGN_OR_RETURN(const File file, folder.OpenAt(FileName(kind), O_RDONLY));
    PEERCHUNK_ASSIGN_OR_RETURN(FileChecksums sums, FileChecksums::Compute(file));
    if (sums.size != record.checksums->size || sums.crc32c != record.checksums->crc32c) {
      return absl::DataLossError(
          absl::StrCat(AbslView(FileName(kind)), " does not match its record either"));
    }
    record.checksums = std::make_shared<const FileChecksums>(std::move(sums));
  }
  return folder.ReplaceFile(kBlocksName, EncodeBlocks(build));
}

absl::Status CheckSizes(const File& folder, const RecordedBuild& build) {
  for (const auto& [kind, record] : build.files) {
    const std::string name = RecordedFileName(kind, build.metadata_version);
    PEERCHUNK_ASSIGN_OR_RETURN(const File file, folder.OpenAt(name, O_RDONLY));
    PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
    if (size != record.checksums->size) {
      return absl::DataLossError(
          absl::StrCat(name, " has ", size, " bytes, its record says ", record.checksums->size));
    }
  }
  return absl::OkStatus();
}

// Removes what a crash may have left beside a build's files.
void RemoveLeftovers(const File& folder, const RecordedBuild& build) {
  const std::string current = RecordedFileName(FileKind::kMetadata, build.metadata_version);
  const absl::StatusOr<std::vector<std::string>> entries = folder.List();
  if (!entries.ok()) return;
  for (const std::string& entry : *entries) {
    const bool old_metadata = entry.starts_with(FileName(FileKind::kMetadata)) && entry != current;
    if (old_metadata || entry.starts_with(".tmp-")) folder.Remove(entry).IgnoreError();
  }
}

absl::StatusOr<RecordedBuild> LoadBuild(const File& parent, const BuildId& id,
                                        std::vector<std::string>& report) {
  PEERCHUNK_ASSIGN_OR_RETURN(const File folder,
                             parent.OpenAt(id.ToString(), O_RDONLY | O_DIRECTORY));
  PEERCHUNK_ASSIGN_OR_RETURN(const std::string bytes,
                             folder.ReadSmallFile(kRecordName, kMaxRecordBytes));
  PEERCHUNK_ASSIGN_OR_RETURN(RecordedBuild build, DecodeRecord(bytes, id));

  const absl::StatusOr<std::string> blocks = folder.ReadSmallFile(kBlocksName, kMaxRecordBytes);
  absl::Status usable = blocks.ok() ? DecodeBlocks(*blocks, build) : blocks.status();
  if (!usable.ok()) {
    const std::string why(usable.message());
    usable = RestoreBlocks(folder, build);
    if (!usable.ok()) return Annotate(usable, why);
    report.push_back(absl::StrCat("build ", id.ToString(), ": ", why,
                                  "; its block checksums were made again from the files"));
  }
  RemoveLeftovers(folder, build);

  const absl::Status whole = CheckSizes(folder, build);
  if (build.status.state == BuildState::kFailed) {
    build.status.state = BuildState::kLocal;
    build.reason.clear();
    build.upload_attempts = 0;
  }
  if (!whole.ok()) {
    report.push_back(absl::StrCat("build ", id.ToString(), ": ", whole.message()));
    if (build.status.state != BuildState::kDurable) {
      build.status.state = BuildState::kFailed;
      build.reason = std::string(whole.message());
    }
  }
  return build;
}

// Nothing in a folder that cannot be understood is deleted: it may be the only copy.
std::string SetAside(const File& parent, const std::string& name, const absl::Status& why) {
  for (int n = 1;; ++n) {
    const std::string aside = absl::StrCat(AbslView(kDamagedPrefix), name, "-", n);
    // A folder is not renamed over one that holds anything.
    if (renameat(parent.fd(), name.c_str(), parent.fd(), aside.c_str()) == 0) {
      return absl::StrCat("build ", name, ": ", why.message(), "; set aside as ", aside,
                          ", where its files can be recovered by hand");
    }
    if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR) {
      return absl::StrCat("build ", name, ": ", why.message(),
                          "; it could not be set aside: ", ErrnoStatus(errno, aside).message());
    }
  }
}

void RemoveUnfinished(const File& folder, const std::string& name, std::string_view what,
                      std::vector<std::string>& report) {
  const absl::Status removed = folder.RemoveTree(name);
  report.push_back(removed.ok() ? absl::StrCat(AbslView(what), " ", name, " was removed")
                                : absl::StrCat(AbslView(what), " ", name,
                                               " could not be removed: ", removed.message()));
}

absl::Status WriteNewFile(const File& folder, std::string_view name, std::string_view bytes) {
  PEERCHUNK_ASSIGN_OR_RETURN(const File file, folder.OpenAt(name, O_WRONLY | O_CREAT | O_EXCL));
  return Annotate(file.WriteAt(0, bytes), absl::StrCat("write ", AbslView(name)));
}

}  // namespace

absl::StatusOr<LoadedFolder> LoadBuilds(const File& folder) {
  LoadedFolder loaded;
  PEERCHUNK_ASSIGN_OR_RETURN(const std::vector<std::string> entries, folder.List());
  for (const std::string& name : entries) {
    if (name.starts_with(kPausePrefix)) {
      RemoveUnfinished(folder, name, "a pause that had not returned:", loaded.report);
    } else if (name.starts_with(kRemovePrefix)) {
      RemoveUnfinished(folder, name, "a removal that had not ended:", loaded.report);
    } else if (name.starts_with(kDamagedPrefix)) {
      loaded.report.push_back(absl::StrCat(name, " is still set aside"));
    } else if (const auto id = BuildId::Parse(name); id.ok()) {
      absl::StatusOr<RecordedBuild> build = LoadBuild(folder, *id, loaded.report);
      if (build.ok()) {
        loaded.builds.push_back(*std::move(build));
      } else if (absl::IsUnimplemented(build.status())) {
        loaded.report.push_back(absl::StrCat("build ", name, ": ", build.status().message(),
                                             "; left as it is and not served"));
      } else {
        loaded.report.push_back(SetAside(folder, name, build.status()));
      }
    }
  }
  return loaded;
}

absl::StatusOr<RecordedBuild> FillBuildFolder(const BuildId& id, const SnapshotFiles& files,
                                              const File& folder, const std::string& name,
                                              absl::Time now) {
  PEERCHUNK_RETURN_IF_ERROR(folder.RemoveTree(name));
  PEERCHUNK_RETURN_IF_ERROR(folder.MakeFolder(name));
  PEERCHUNK_ASSIGN_OR_RETURN(const File inside, folder.OpenAt(name, O_RDONLY | O_DIRECTORY));
  RecordedBuild build;
  build.id = id;
  build.status.state = BuildState::kLocal;
  build.paused_at = now;
  for (const auto& [kind, path] : files.paths) {
    PEERCHUNK_RETURN_IF_ERROR(ShareFile(path, inside, FileName(kind)));
    PEERCHUNK_ASSIGN_OR_RETURN(const File file, inside.OpenAt(FileName(kind), O_RDONLY));
    absl::StatusOr<FileChecksums> sums = FileChecksums::Compute(file);
    if (!sums.ok()) return Annotate(sums.status(), path);
    build.files[kind].checksums = std::make_shared<const FileChecksums>(*std::move(sums));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(build.ancestors, CheckSnapshot(id, files, inside, build.files));
  PEERCHUNK_RETURN_IF_ERROR(WriteNewFile(inside, kBlocksName, EncodeBlocks(build)));
  PEERCHUNK_RETURN_IF_ERROR(WriteNewFile(inside, kRecordName, EncodeRecord(build)));
  return build;
}

absl::Status SyncFolder(const File& folder) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::vector<std::string> entries, folder.List());
  for (const std::string& entry : entries) {
    const absl::StatusOr<File> file = folder.OpenAt(entry, O_RDONLY);
    if (absl::IsNotFound(file.status())) continue;  // Replaced or removed meanwhile.
    PEERCHUNK_RETURN_IF_ERROR(file);
    PEERCHUNK_RETURN_IF_ERROR(file->Sync());
  }
  return folder.Sync();
}

}  // namespace peerchunk
