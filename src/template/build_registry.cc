#include "peerchunk/template/build_registry.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "base/logging.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/status.h"
#include "template/build_folder.h"
#include "template/record_file.h"
#include "template/snapshot_check.h"

namespace peerchunk {
namespace {

constexpr std::string_view kLockName = ".lock";
// Blocks of disk given back when a record cannot be written for lack of space: an upload that ends
// is what will make room.
constexpr std::string_view kReserveName = ".reserve";
constexpr uint64_t kReserveBytes = kMiB;

std::string_view View(absl::string_view text) { return {text.data(), text.size()}; }

absl::Status WrongState(const RecordedBuild& build, std::string_view step) {
  return absl::FailedPreconditionError(absl::StrCat("build ", build.id.ToString(), " is ",
                                                    AbslView(BuildStateName(build.status.state)),
                                                    ": cannot ", AbslView(step)));
}

uint64_t RandomIncarnation() {
  uint64_t incarnation = 0;
  while (incarnation == 0) {
    std::memcpy(&incarnation, BuildId::Random().bytes().data(), sizeof incarnation);
  }
  return incarnation;
}

absl::StatusOr<File> OpenFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("make folder ", path));
  return File::Open(path, O_RDONLY | O_DIRECTORY);
}

absl::StatusOr<File> TakeLock(const File& folder, const std::string& path) {
  PEERCHUNK_ASSIGN_OR_RETURN(File lock, folder.OpenAt(kLockName, O_RDWR | O_CREAT));
  if (flock(lock.fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock");
    const auto holder = folder.ReadSmallFile(kLockName, 64);
    return absl::FailedPreconditionError(absl::StrCat(path, " is in use by another process (",
                                                      holder.ok() ? *holder : "unknown",
                                                      "); stop it or choose another folder"));
  }
  PEERCHUNK_RETURN_IF_ERROR(lock.Truncate(0));
  PEERCHUNK_RETURN_IF_ERROR(lock.WriteAt(0, absl::StrCat("pid ", getpid())));
  return lock;
}

void ReportSyncFailure(const BuildId& id, const absl::Status& why, Metrics* metrics) {
  if (metrics != nullptr) metrics->counter("peerchunk_sync_failures_total").Add();
  Logger("template")
      .error("event=sync_failed build={} error=\"{}\"", id.ToString(), View(why.message()));
}

std::string DiscardedName(const BuildId& id) {
  return absl::StrCat(AbslView(kDiscardedPrefix), id.ToString());
}

}  // namespace

bool HeldByBase(const RecordedBuild& build) {
  return build.status.state == BuildState::kDurable &&
         build.metadata_version_in_base == build.metadata_version;
}

struct BuildRegistry::Impl : std::enable_shared_from_this<Impl> {
  // `record` is null while Add is at work. `changing` is held by the one thread that may replace
  // it.
  struct Slot {
    std::shared_ptr<const RecordedBuild> record;
    bool changing = false;
  };
  // Edits a copy of the record; true when it is to be written and published.
  using Edit = std::function<absl::StatusOr<bool>(RecordedBuild&)>;

  Options options;
  File folder;
  File lock;
  File reserve;  // May be closed: then there is none.
  uint64_t incarnation = 0;
  std::vector<std::string> report;

  mutable Mutex mutex;
  CondVar changed;  // Some slot is no longer `changing`.
  std::map<BuildId, Slot> slots PEERCHUNK_GUARDED_BY(mutex);
  uint64_t sequence PEERCHUNK_GUARDED_BY(mutex) = 0;
  std::set<BuildId> discarded PEERCHUNK_GUARDED_BY(mutex);

  std::shared_ptr<const RecordedBuild> Find(const BuildId& id) const {
    const MutexLock hold(mutex);
    const auto found = slots.find(id);
    return found == slots.end() ? nullptr : found->second.record;
  }

  void PublishLocked(RecordedBuild build) PEERCHUNK_REQUIRES(mutex) {
    build.status.incarnation = incarnation;
    build.status.sequence = ++sequence;
    Slot& slot = slots[build.id];
    slot.record = std::make_shared<const RecordedBuild>(std::move(build));
  }

  // Waits for the turn to change a build; the record as it is then. NotFound: no such build.
  absl::StatusOr<RecordedBuild> BeginChange(const BuildId& id) {
    const MutexLock hold(mutex);
    while (true) {
      const auto found = slots.find(id);
      if (found == slots.end() || found->second.record == nullptr) {
        return absl::NotFoundError(
            absl::StrCat("build ", id.ToString(), " was not paused on this node"));
      }
      if (!found->second.changing) {
        found->second.changing = true;
        return *found->second.record;
      }
      changed.Wait(mutex);
    }
  }

  // Ends the turn, with what to publish.
  void EndChange(const BuildId& id, std::optional<RecordedBuild> build) {
    const MutexLock hold(mutex);
    slots[id].changing = false;
    if (build) PublishLocked(*std::move(build));
    changed.NotifyAll();
  }

  absl::Status Change(const BuildId& id, const Edit& edit) {
    PEERCHUNK_ASSIGN_OR_RETURN(RecordedBuild build, BeginChange(id));
    absl::StatusOr<bool> write = edit(build);
    if (write.ok() && *write) {
      const absl::Status written = WriteRecord(build);
      if (!written.ok()) write = written;
    }
    if (write.ok() && *write) {
      EndChange(id, std::move(build));
    } else {
      EndChange(id, std::nullopt);
    }
    return write.status();
  }

  absl::Status WriteRecord(const RecordedBuild& build) {
    const std::string name = absl::StrCat(build.id.ToString(), "/", AbslView(kRecordName));
    const std::string bytes = EncodeRecord(build);
    absl::Status written = folder.ReplaceFile(name, bytes);
    if (!absl::IsResourceExhausted(written) || !reserve.is_open()) return written;
    Logger("template").warn("event=disk_full using=reserve folder={}", options.folder);
    PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t reserved, reserve.Size());
    // The file, and what the file system needs for a name; the rest is kept for the next one.
    const uint64_t given = RoundUp(bytes.size(), kPageBytes) + 4 * kPageBytes;
    PEERCHUNK_RETURN_IF_ERROR(reserve.Truncate(reserved - std::min(reserved, given)));
    written = folder.ReplaceFile(name, bytes);
    FillReserve(reserved);  // The old record is gone now.
    return written;
  }

  void FillReserve(uint64_t bytes) {
    if (reserve.is_open()) posix_fallocate(reserve.fd(), 0, static_cast<off_t>(bytes));
  }

  std::string PathOf(const BuildFileId& id, uint64_t metadata_version) const {
    return absl::StrCat(id.build.ToString(), "/", RecordedFileName(id.kind, metadata_version));
  }

  absl::StatusOr<RecordedBuild> FillAndRename(const BuildId& id, const SnapshotFiles& files,
                                              bool sync, const AncestorSources& sources_of);
  // Syncs a build's folder and then the one it is in, in the background where there is one.
  void StartSync(const BuildId& id, std::shared_ptr<File> inside);
  void SyncLoaded(const std::vector<RecordedBuild>& builds);
  void Discard(const BuildId& id);
  void ForgetDiscarded(const BuildId& id);
  absl::StatusOr<std::shared_ptr<LocalBuildFile>> OpenRecorded(const BuildFileId& id,
                                                               const RecordedBuild& build);
  absl::Status MarkFailed(const BuildId& id, std::string reason);
  absl::StatusOr<bool> WriteMetadata(std::string_view bytes, RecordedBuild& build);
};

BuildRegistry::BuildRegistry(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
BuildRegistry::~BuildRegistry() = default;

absl::StatusOr<std::unique_ptr<BuildRegistry>> BuildRegistry::Open(Options options) {
  auto impl = std::make_shared<Impl>();
  impl->options = std::move(options);
  const std::string& path = impl->options.folder;
  const absl::Status opened = [&]() -> absl::Status {
    PEERCHUNK_ASSIGN_OR_RETURN(impl->folder, OpenFolder(path));
    PEERCHUNK_ASSIGN_OR_RETURN(impl->lock, TakeLock(impl->folder, path));
    PEERCHUNK_ASSIGN_OR_RETURN(LoadedFolder loaded, LoadBuilds(impl->folder, impl->options.base));
    impl->report = std::move(loaded.report);
    impl->incarnation = RandomIncarnation();
    impl->SyncLoaded(loaded.builds);
    const MutexLock hold(impl->mutex);
    impl->discarded = std::move(loaded.discarded);
    for (RecordedBuild& build : loaded.builds) impl->PublishLocked(std::move(build));
    return absl::OkStatus();
  }();
  if (!opened.ok()) return Annotate(opened, absl::StrCat("open the builds in ", path));
  if (auto reserve = impl->folder.OpenAt(kReserveName, O_RDWR | O_CREAT); reserve.ok()) {
    impl->reserve = *std::move(reserve);
    impl->FillReserve(kReserveBytes);
  }
  for (const std::string& line : impl->report)
    Logger("template").warn("event=found_at_start {}", line);
  return std::unique_ptr<BuildRegistry>(new BuildRegistry(std::move(impl)));
}

const std::vector<std::string>& BuildRegistry::StartupReport() const { return impl_->report; }
uint64_t BuildRegistry::incarnation() const { return impl_->incarnation; }

absl::StatusOr<RecordedBuild> BuildRegistry::Impl::FillAndRename(
    const BuildId& id, const SnapshotFiles& files, bool sync, const AncestorSources& sources_of) {
  const std::string pausing = absl::StrCat(AbslView(kPausePrefix), id.ToString());
  absl::StatusOr<RecordedBuild> build = FillBuildFolder(
      id, files, folder, pausing,
      {.now = options.clock->Now(), .base = options.base, .sources_of = sources_of});
  absl::Status done = build.status();
  std::shared_ptr<File> inside;
  if (done.ok()) {
    absl::StatusOr<File> opened = folder.OpenAt(pausing, O_RDONLY | O_DIRECTORY);
    done = opened.status();
    if (done.ok()) inside = std::make_shared<File>(*std::move(opened));
  }
  if (done.ok() && sync) done = SyncFolder(*inside);
  if (done.ok() &&
      renameat(folder.fd(), pausing.c_str(), folder.fd(), id.ToString().c_str()) != 0) {
    done = errno == ENOTEMPTY || errno == EEXIST
               ? absl::AlreadyExistsError(absl::StrCat("the folder ", id.ToString(),
                                                       " exists, with a build that is not loaded"))
               : ErrnoStatus(errno, "rename");
  }
  if (!done.ok()) {
    const absl::Status removed = folder.RemoveTree(pausing);
    if (!removed.ok()) {
      Logger("template")
          .error("event=pause_cleanup_failed folder={} error=\"{}\"", pausing,
                 View(removed.message()));
    }
    return done;
  }
  if (sync) {
    // The build is complete and safe but for its name, which is not worth losing it.
    const absl::Status named = folder.Sync();
    if (!named.ok()) ReportSyncFailure(id, named, options.metrics);
  } else {
    StartSync(id, std::move(inside));
  }
  return build;
}

// What it needs is its own: it may run when the registry is gone.
void BuildRegistry::Impl::StartSync(const BuildId& id, std::shared_ptr<File> inside) {
  absl::StatusOr<File> opened = folder.OpenAt(".", O_RDONLY | O_DIRECTORY);
  if (!opened.ok()) return ReportSyncFailure(id, opened.status(), options.metrics);
  auto sync = [id, inside = std::move(inside), metrics = options.metrics,
               parent = std::make_shared<File>(*std::move(opened))] {
    absl::Status synced = SyncFolder(*inside);
    if (synced.ok()) synced = parent->Sync();
    if (!synced.ok()) ReportSyncFailure(id, synced, metrics);
  };
  if (options.executor == nullptr) {
    sync();
  } else {
    options.executor->Run(Priority::kPrefetch, std::move(sync));
  }
}

void BuildRegistry::Impl::SyncLoaded(const std::vector<RecordedBuild>& builds) {
  for (const RecordedBuild& build : builds) {
    if (build.status.state == BuildState::kDurable) continue;
    absl::StatusOr<File> inside = folder.OpenAt(build.id.ToString(), O_RDONLY | O_DIRECTORY);
    if (inside.ok()) {
      StartSync(build.id, std::make_shared<File>(*std::move(inside)));
    } else {
      ReportSyncFailure(build.id, inside.status(), options.metrics);
    }
  }
}

absl::StatusOr<std::shared_ptr<const RecordedBuild>> BuildRegistry::Add(
    const BuildId& id, const SnapshotFiles& files, bool sync, const AncestorSources& sources_of) {
  const std::string context = absl::StrCat("pause ", id.ToString());
  if (id.is_nil()) return absl::InvalidArgumentError("pause: the nil UUID names no build");
  const absl::Status paths = CheckSnapshotPaths(files);
  if (!paths.ok()) return Annotate(paths, context);
  {
    const MutexLock hold(impl_->mutex);
    if (!impl_->slots.emplace(id, Impl::Slot{}).second) {
      return absl::AlreadyExistsError(
          absl::StrCat(context, ": this build is recorded here; remove it first"));
    }
  }
  impl_->FillReserve(kReserveBytes);
  absl::StatusOr<RecordedBuild> build =
      impl_->FillAndRename(id, files, sync || impl_->options.executor == nullptr, sources_of);
  if (build.ok()) impl_->ForgetDiscarded(id);
  const MutexLock hold(impl_->mutex);
  if (!build.ok()) {
    impl_->slots.erase(id);
    return Annotate(build.status(), context);
  }
  impl_->PublishLocked(*std::move(build));
  return impl_->slots[id].record;
}

std::shared_ptr<const RecordedBuild> BuildRegistry::Find(const BuildId& id) const {
  return impl_->Find(id);
}

std::vector<std::shared_ptr<const RecordedBuild>> BuildRegistry::List() const {
  std::vector<std::shared_ptr<const RecordedBuild>> builds;
  const MutexLock hold(impl_->mutex);
  for (const auto& [id, slot] : impl_->slots) {
    if (slot.record != nullptr) builds.push_back(slot.record);
  }
  return builds;
}

bool BuildRegistry::Discarded(const BuildId& id) const {
  const MutexLock hold(impl_->mutex);
  return impl_->discarded.contains(id);
}

absl::StatusOr<std::shared_ptr<LocalBuildFile>> BuildRegistry::Impl::OpenRecorded(
    const BuildFileId& id, const RecordedBuild& build) {
  const auto found = build.files.find(id.kind);
  if (found == build.files.end()) {
    return absl::NotFoundError(
        absl::StrCat("open ", id.ObjectPath(), ": the build has no such file"));
  }
  absl::StatusOr<File> file = folder.OpenAt(PathOf(id, build.metadata_version), O_RDONLY);
  if (!file.ok()) return Annotate(file.status(), absl::StrCat("open ", id.ObjectPath()));
  return LocalBuildFile::Open(
      id, *std::move(file), found->second.checksums,
      [weak = weak_from_this(), build_id = id.build](const absl::Status& why) {
        const std::shared_ptr<Impl> impl = weak.lock();
        if (impl == nullptr) return;
        Logger("template")
            .error("event=corrupt build={} error=\"{}\"", build_id.ToString(), View(why.message()));
        const absl::Status marked = impl->MarkFailed(build_id, std::string(why.message()));
        if (!marked.ok()) {
          Logger("template")
              .error("event=mark_failed_failed build={} error=\"{}\"", build_id.ToString(),
                     View(marked.message()));
        }
      });
}

absl::StatusOr<std::shared_ptr<LocalBuildFile>> BuildRegistry::OpenFile(const BuildFileId& id) {
  while (true) {
    const std::shared_ptr<const RecordedBuild> build = Find(id.build);
    if (build == nullptr) {
      return absl::NotFoundError(
          absl::StrCat("open ", id.ObjectPath(), ": the build was not paused on this node"));
    }
    absl::StatusOr<std::shared_ptr<LocalBuildFile>> file = impl_->OpenRecorded(id, *build);
    if (!absl::IsNotFound(file.status()) || !build->has(id.kind)) return file;
    // Removed, or metadata.json replaced, since the look; or else the disk has lost it.
    if (Find(id.build) != build) continue;
    const absl::Status lost =
        absl::DataLossError(absl::StrCat("open ", id.ObjectPath(), ": the recorded file is gone"));
    impl_->MarkFailed(id.build, std::string(lost.message())).IgnoreError();
    return lost;
  }
}

std::string BuildRegistry::PathOf(const BuildFileId& id) const {
  const std::shared_ptr<const RecordedBuild> build = Find(id.build);
  return absl::StrCat(impl_->options.folder, "/",
                      impl_->PathOf(id, build == nullptr ? 1 : build->metadata_version));
}

absl::Status BuildRegistry::MarkUploading(const BuildId& id) {
  return impl_->Change(id, [](RecordedBuild& build) -> absl::StatusOr<bool> {
    if (build.status.state == BuildState::kUploading) return false;
    if (build.status.state != BuildState::kLocal) return WrongState(build, "be uploaded");
    build.status.state = BuildState::kUploading;
    return true;
  });
}

absl::Status BuildRegistry::RecordAttempt(const BuildId& id, const absl::Status& why) {
  return impl_->Change(id, [&](RecordedBuild& build) -> absl::StatusOr<bool> {
    if (build.status.state == BuildState::kFailed) return WrongState(build, "be uploaded");
    ++build.upload_attempts;
    build.reason = std::string(why.message());
    return true;
  });
}

void BuildRegistry::NoteWaiting(const BuildId& id, std::string_view reason) {
  absl::StatusOr<RecordedBuild> build = impl_->BeginChange(id);
  if (!build.ok()) return;
  if (build->reason == reason) {
    impl_->EndChange(id, std::nullopt);
    return;
  }
  build->reason = std::string(reason);
  impl_->EndChange(id, *std::move(build));
}

absl::Status BuildRegistry::ConfirmInBase(const BuildFileId& id, uint64_t metadata_version) {
  return impl_->Change(id.build, [&](RecordedBuild& build) -> absl::StatusOr<bool> {
    const auto file = build.files.find(id.kind);
    if (file == build.files.end()) {
      return absl::NotFoundError(absl::StrCat(id.ObjectPath(), ": the build has no such file"));
    }
    const bool durable = build.status.state == BuildState::kDurable;
    if (build.status.state != BuildState::kUploading && !durable) {
      return WrongState(build, "have a file confirmed");
    }
    if (id.kind != FileKind::kMetadata) return !std::exchange(file->second.in_base, true);

    if (metadata_version == 0 || metadata_version > build.metadata_version) {
      return absl::InvalidArgumentError(absl::StrCat(
          id.ObjectPath(), ": version ", metadata_version, " of ", build.metadata_version));
    }
    for (const auto& [kind, other] : build.files) {
      if (kind != FileKind::kMetadata && !other.in_base) {
        return absl::FailedPreconditionError(
            absl::StrCat(id.ObjectPath(), " is in the base before ", AbslView(FileName(kind))));
      }
    }
    if (metadata_version <= build.metadata_version_in_base) return false;
    build.metadata_version_in_base = metadata_version;
    file->second.in_base = metadata_version == build.metadata_version;
    return true;
  });
}

absl::Status BuildRegistry::DropInBase(const BuildFileId& id) {
  return impl_->Change(id.build, [&](RecordedBuild& build) -> absl::StatusOr<bool> {
    if (build.status.state != BuildState::kUploading) return WrongState(build, "lose an object");
    const auto file = build.files.find(id.kind);
    if (file == build.files.end()) return false;
    if (id.kind == FileKind::kMetadata) build.metadata_version_in_base = 0;
    return std::exchange(file->second.in_base, false);
  });
}

absl::Status BuildRegistry::MarkDurable(const BuildId& id) {
  return impl_->Change(id, [](RecordedBuild& build) -> absl::StatusOr<bool> {
    if (build.status.state == BuildState::kDurable) return false;
    if (build.status.state != BuildState::kUploading) return WrongState(build, "be durable");
    for (const auto& [kind, file] : build.files) {
      const bool confirmed =
          kind == FileKind::kMetadata ? build.metadata_version_in_base > 0 : file.in_base;
      if (!confirmed) {
        return absl::FailedPreconditionError(absl::StrCat(
            "build ", build.id.ToString(), " is not durable: ", AbslView(FileName(kind)),
            " is not confirmed in the base"));
      }
    }
    build.status.state = BuildState::kDurable;
    build.reason.clear();
    return true;
  });
}

absl::Status BuildRegistry::Impl::MarkFailed(const BuildId& id, std::string reason) {
  return Change(id, [&](RecordedBuild& build) -> absl::StatusOr<bool> {
    if (build.status.state == BuildState::kDurable) return WrongState(build, "fail");
    if (build.status.state == BuildState::kFailed && build.reason == reason) return false;
    build.status.state = BuildState::kFailed;
    build.reason = std::move(reason);
    return true;
  });
}

absl::Status BuildRegistry::MarkFailed(const BuildId& id, std::string reason) {
  return impl_->MarkFailed(id, std::move(reason));
}

absl::Status BuildRegistry::Retry(const BuildId& id) {
  return impl_->Change(id, [](RecordedBuild& build) -> absl::StatusOr<bool> {
    if (build.status.state != BuildState::kFailed) return WrongState(build, "be tried again");
    build.status.state = BuildState::kLocal;
    build.reason.clear();
    build.upload_attempts = 0;
    return true;
  });
}

absl::StatusOr<bool> BuildRegistry::Impl::WriteMetadata(std::string_view bytes,
                                                        RecordedBuild& build) {
  const BuildFileId id{build.id, FileKind::kMetadata};
  const std::string name = PathOf(id, build.metadata_version + 1);
  folder.Remove(name).IgnoreError();  // Of an attempt whose record was not written.
  PEERCHUNK_ASSIGN_OR_RETURN(const File file, folder.OpenAt(name, O_RDWR | O_CREAT | O_EXCL));
  PEERCHUNK_RETURN_IF_ERROR(file.WriteAt(0, bytes));
  // Before the record, which must not outlive a power cut alone.
  PEERCHUNK_RETURN_IF_ERROR(file.Sync());
  PEERCHUNK_ASSIGN_OR_RETURN(FileChecksums sums, FileChecksums::Compute(file));
  build.files[FileKind::kMetadata] = {std::make_shared<const FileChecksums>(std::move(sums)),
                                      false};
  ++build.metadata_version;
  return true;
}

absl::Status BuildRegistry::ReplaceMetadata(const BuildId& id, std::string_view bytes,
                                            std::optional<uint64_t> only_version) {
  const std::string context = absl::StrCat("replace metadata.json of ", id.ToString());
  if (bytes.size() > kMaxMetadataBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(context, ": ", bytes.size(), " bytes, at most ", kMaxMetadataBytes));
  }
  uint64_t old_version = 0;
  const absl::Status replaced =
      impl_->Change(id, [&](RecordedBuild& build) -> absl::StatusOr<bool> {
        PEERCHUNK_RETURN_IF_ERROR(CheckMetadata(bytes, id, build.has(FileKind::kMemfile)));
        old_version = build.metadata_version;
        if (only_version && *only_version != old_version) {
          return absl::AbortedError(
              absl::StrCat("it is version ", old_version, " now, no longer ", *only_version));
        }
        return impl_->WriteMetadata(bytes, build);
      });
  if (!replaced.ok()) return Annotate(replaced, context);
  impl_->folder.Remove(impl_->PathOf({id, FileKind::kMetadata}, old_version)).IgnoreError();
  return absl::OkStatus();
}

// Children that wait for the build must learn that it will never come, whatever ends this process.
void BuildRegistry::Impl::Discard(const BuildId& id) {
  absl::Status kept = folder.OpenAt(DiscardedName(id), O_WRONLY | O_CREAT).status();
  if (kept.ok()) kept = folder.Sync();
  if (!kept.ok()) {  // A full disk, say, which a removal must be able to end.
    Logger("template")
        .error("event=discard_not_kept build={} error=\"{}\"", id.ToString(), View(kept.message()));
  }
  const MutexLock hold(mutex);
  discarded.insert(id);
}

void BuildRegistry::Impl::ForgetDiscarded(const BuildId& id) {
  {
    const MutexLock hold(mutex);
    if (discarded.erase(id) == 0) return;
  }
  folder.Remove(DiscardedName(id)).IgnoreError();
}

absl::Status BuildRegistry::Remove(const BuildId& id,
                                   const std::function<bool(const RecordedBuild&)>& only_if) {
  PEERCHUNK_ASSIGN_OR_RETURN(const RecordedBuild build, impl_->BeginChange(id));
  if (only_if && !only_if(build)) {
    impl_->EndChange(id, std::nullopt);
    return WrongState(build, "be removed");
  }
  // Renamed first: a crash leaves the build whole or gone.
  const std::string removing = absl::StrCat(AbslView(kRemovePrefix), id.ToString());
  absl::Status gone = impl_->folder.RemoveTree(removing);
  const bool only_copy = build.status.state != BuildState::kDurable;
  if (gone.ok() && only_copy) impl_->Discard(id);
  if (gone.ok() &&
      renameat(impl_->folder.fd(), id.ToString().c_str(), impl_->folder.fd(),
               removing.c_str()) != 0 &&
      errno != ENOENT) {  // Someone else may have removed it already.
    gone = ErrnoStatus(errno, "rename");
  }
  if (!gone.ok()) {
    if (only_copy) impl_->ForgetDiscarded(id);
    impl_->EndChange(id, std::nullopt);
    return Annotate(gone, absl::StrCat("remove ", id.ToString()));
  }
  {
    const MutexLock hold(impl_->mutex);
    impl_->slots.erase(id);
    impl_->changed.NotifyAll();
  }
  return Annotate(impl_->folder.RemoveTree(removing), absl::StrCat("remove ", id.ToString()));
}

}  // namespace peerchunk
