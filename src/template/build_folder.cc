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
  return absl::OkStatus();
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

// What another base has confirmed says nothing of this one.
void UseBase(const std::string& base, RecordedBuild& build, std::vector<std::string>& report) {
  const std::string before = std::exchange(build.base, base);
  if (before.empty() || base.empty() || before == base) return;
  for (auto& [kind, record] : build.files) record.in_base = false;
  build.metadata_version_in_base = 0;
  if (build.status.state != BuildState::kDurable) return;
  build.status.state = BuildState::kLocal;
  report.push_back(absl::StrCat("build ", build.id.ToString(), " was DURABLE in ", before,
                                "; it is uploaded to ", base, " too"));
}

// True where trying again may help: the build is as it was, but cannot be read now.
bool MayPass(const absl::Status& status) {
  return !absl::IsDataLoss(status) && !absl::IsNotFound(status) &&
         !absl::IsInvalidArgument(status) && !absl::IsFailedPrecondition(status);
}

absl::StatusOr<RecordedBuild> LoadBuild(const File& parent, const BuildId& id,
                                        const std::string& base, std::vector<std::string>& report) {
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
    // They are verified: a disk without room for them costs this work again at the next start.
    const absl::Status kept = folder.ReplaceFile(kBlocksName, EncodeBlocks(build));
    if (!kept.ok()) {
      report.push_back(absl::StrCat("build ", id.ToString(),
                                    ": its block checksums could not be kept: ", kept.message()));
    }
  }
  RemoveLeftovers(folder, build);

  UseBase(base, build, report);
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

absl::StatusOr<LoadedFolder> LoadBuilds(const File& folder, const std::string& base) {
  LoadedFolder loaded;
  PEERCHUNK_ASSIGN_OR_RETURN(const std::vector<std::string> entries, folder.List());
  for (const std::string& name : entries) {
    if (name.starts_with(kPausePrefix)) {
      RemoveUnfinished(folder, name, "a pause that had not returned:", loaded.report);
    } else if (name.starts_with(kRemovePrefix)) {
      RemoveUnfinished(folder, name, "a removal that had not ended:", loaded.report);
    } else if (name.starts_with(kDamagedPrefix)) {
      loaded.report.push_back(absl::StrCat(name, " is still set aside"));
    } else if (name.starts_with(kDiscardedPrefix)) {
      const auto id = BuildId::Parse(name.substr(kDiscardedPrefix.size()));
      if (id.ok()) loaded.discarded.insert(*id);
    } else if (const auto id = BuildId::Parse(name); id.ok()) {
      absl::StatusOr<RecordedBuild> build = LoadBuild(folder, *id, base, loaded.report);
      if (build.ok()) {
        loaded.builds.push_back(*std::move(build));
      } else if (MayPass(build.status())) {
        loaded.report.push_back(absl::StrCat("build ", name, ": ", build.status().message(),
                                             "; left as it is and not served"));
      } else {
        loaded.report.push_back(SetAside(folder, name, build.status()));
      }
    }
  }
  // Its removal had not begun.
  for (const RecordedBuild& build : loaded.builds) {
    if (loaded.discarded.erase(build.id) == 0) continue;
    folder.Remove(absl::StrCat(AbslView(kDiscardedPrefix), build.id.ToString())).IgnoreError();
  }
  return loaded;
}

absl::StatusOr<RecordedBuild> FillBuildFolder(const BuildId& id, const SnapshotFiles& files,
                                              const File& folder, const std::string& name,
                                              const PauseFacts& facts) {
  PEERCHUNK_RETURN_IF_ERROR(folder.RemoveTree(name));
  PEERCHUNK_RETURN_IF_ERROR(folder.MakeFolder(name));
  PEERCHUNK_ASSIGN_OR_RETURN(const File inside, folder.OpenAt(name, O_RDONLY | O_DIRECTORY));
  RecordedBuild build;
  build.id = id;
  build.status.state = BuildState::kLocal;
  build.paused_at = facts.now;
  build.base = facts.base;
  build.upload_token = BuildId::Random().ToString();
  for (const auto& [kind, path] : files.paths) {
    PEERCHUNK_RETURN_IF_ERROR(ShareFile(path, inside, FileName(kind)));
    PEERCHUNK_ASSIGN_OR_RETURN(const File file, inside.OpenAt(FileName(kind), O_RDONLY));
    absl::StatusOr<FileChecksums> sums = FileChecksums::Compute(file);
    if (!sums.ok()) return Annotate(sums.status(), path);
    build.files[kind].checksums = std::make_shared<const FileChecksums>(*std::move(sums));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(build.ancestors, CheckSnapshot(id, files, inside, build.files));
  if (facts.sources_of) {
    for (const BuildId& ancestor : build.ancestors) {
      std::vector<std::string> sources = facts.sources_of(ancestor);
      if (!sources.empty()) build.ancestor_sources[ancestor] = std::move(sources);
    }
  }
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
