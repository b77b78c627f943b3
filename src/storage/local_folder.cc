#include "storage/local_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/status.h"
#include "storage/local_tree.h"

namespace peerchunk {
namespace {

constexpr char kReserved[] = ".peerchunk";
constexpr char kTemporary[] = ".peerchunk/tmp";
constexpr char kSidecars[] = ".peerchunk/objects";
constexpr char kLocks[] = ".peerchunk/locks";
constexpr uint32_t kLockFiles = 64;

std::string SidecarFolder(std::string_view path) {
  return absl::StrCat(kSidecars, "/", AbslView(path));
}

std::string Version(const struct stat& info) {
  return absl::StrCat(info.st_ino, "-", info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec, "-",
                      info.st_size);
}

absl::StatusOr<struct stat> Inspect(const File& file) {
  struct stat info = {};
  if (fstat(file.fd(), &info) != 0) return ErrnoStatus(errno, "fstat");
  return info;
}

absl::Status Lock(const File& file) {
  while (flock(file.fd(), LOCK_EX) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "lock");
  }
  return absl::OkStatus();
}

// The kernel stamps files with a clock that ticks every few milliseconds, in which an inode may be
// freed and used again. The exact time keeps two contents of one path apart.
absl::Status StampExactTime(const File& file) {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  const timespec times[2] = {now, now};
  return futimens(file.fd(), times) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "set time");
}

// Whether a look-up ended at nothing: no entry, or a file where a folder would have to be.
bool FoundNothing(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsFailedPrecondition(status);
}

// Runs `step`, which makes the folders it needs, again when a delete by prefix has removed one of
// them, still empty, in between.
absl::Status WhileFoldersVanish(const std::function<absl::Status()>& step) {
  constexpr int kAttempts = 100;
  absl::Status status;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    status = step();
    if (!absl::IsNotFound(status)) return status;
  }
  return absl::UnavailableError(status.message());
}

// A folder that was removed or unmounted says nothing about its objects.
absl::Status Gone() { return absl::UnavailableError("the storage folder itself is gone"); }

absl::Status Unusable(const std::string& path, const absl::Status& cause) {
  return absl::FailedPreconditionError(
      absl::StrCat("local storage folder '", path, "' cannot be used (", cause.message(),
                   "): make it a folder that this user can write to, or choose another"));
}

}  // namespace

absl::Status LocalObject::CheckUnchanged() const {
  PEERCHUNK_ASSIGN_OR_RETURN(const struct stat info, Inspect(file));
  if (Version(info) == stat.version) return absl::OkStatus();
  return absl::AbortedError("the file was written to while it was read");
}

absl::StatusOr<std::unique_ptr<LocalFolder>> LocalFolder::Open(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return Unusable(path, absl::UnknownError(error.message()));
  absl::StatusOr<File> folder = File::Open(path, O_RDONLY | O_DIRECTORY);
  if (!folder.ok()) return Unusable(path, folder.status());
  for (const char* name : {kTemporary, kSidecars, kLocks}) {
    const absl::Status made = folder->MakeFolder(name);
    if (!made.ok()) return Unusable(path, made);
  }
  absl::StatusOr<File> temporary = folder->OpenAt(kTemporary, O_RDONLY | O_DIRECTORY);
  if (!temporary.ok()) return Unusable(path, temporary.status());

  auto opened =
      std::unique_ptr<LocalFolder>(new LocalFolder(*std::move(folder), *std::move(temporary)));
  const absl::StatusOr<TemporaryFile> probe = opened->Begin();
  if (!probe.ok()) return Unusable(path, probe.status());
  const absl::Status written = probe->file().WriteAt(0, "x");
  if (!written.ok()) return Unusable(path, written);
  TemporaryFile::RemoveLeftovers(opened->temporary_);
  return opened;
}

absl::Status LocalFolder::CheckPath(std::string_view path) {
  PEERCHUNK_RETURN_IF_ERROR(CheckObjectPath(path));
  if (path.substr(0, path.find('/')) == kReserved) {
    return absl::InvalidArgumentError(
        absl::StrCat("object path '", AbslView(path), "': ", kReserved, " is reserved"));
  }
  return absl::OkStatus();
}

absl::StatusOr<LocalObject> LocalFolder::OpenObject(std::string_view path,
                                                    bool with_sidecar) const {
  while (true) {
    // O_NONBLOCK: opening a FIFO that someone put here must not hang.
    absl::StatusOr<File> file = folder_.OpenAt(path, O_RDONLY | O_NONBLOCK);
    if (FoundNothing(file.status())) return Missing();
    if (!file.ok()) return file.status();
    PEERCHUNK_ASSIGN_OR_RETURN(const struct stat info, Inspect(*file));
    if (!S_ISREG(info.st_mode)) return Missing();
    LocalObject object;
    object.stat.size = static_cast<uint64_t>(info.st_size);
    object.stat.version = Version(info);
    object.file = *std::move(file);
    if (!with_sidecar) return object;

    const absl::StatusOr<std::string> text = folder_.ReadSmallFile(
        absl::StrCat(SidecarFolder(path), "/", object.stat.version), kMaxSidecarBytes);
    if (text.ok()) {
      PEERCHUNK_ASSIGN_OR_RETURN(LocalSidecar sidecar, DecodeSidecar(*text));
      if (sidecar.size != object.stat.size) {
        return absl::DataLossError("the record of its checksum is of another size");
      }
      object.stat.crc32c = sidecar.crc32c;
      object.stat.metadata = std::move(sidecar.metadata);
      return object;
    }
    if (!FoundNothing(text.status())) return text.status();
    // No sidecar: either there never was one, or the object was replaced since it was opened and
    // its sidecar is gone already. Then the new one is as good an answer.
    PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<std::string> current, CurrentVersion(path));
    if (current == object.stat.version) return object;
  }
}

absl::StatusOr<TemporaryFile> LocalFolder::Begin() const {
  absl::StatusOr<TemporaryFile> file = TemporaryFile::Create(temporary_);
  if (absl::IsNotFound(file.status())) return Gone();
  return file;
}

absl::StatusOr<ObjectStat> LocalFolder::Publish(TemporaryFile pending, std::string_view path,
                                                const LocalSidecar& sidecar,
                                                const WriteOptions& options) const {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::string text, EncodeSidecar(sidecar));
  PEERCHUNK_RETURN_IF_ERROR(StampExactTime(pending.file()));
  PEERCHUNK_RETURN_IF_ERROR(pending.file().Sync());
  PEERCHUNK_ASSIGN_OR_RETURN(const struct stat info, Inspect(pending.file()));
  const std::string version = Version(info);
  {
    PEERCHUNK_ASSIGN_OR_RETURN(const File lock, LockPath(path));
    PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<std::string> current, CurrentVersion(path));
    if (options.if_absent && current) return absl::AlreadyExistsError("the object is there");
    if (options.if_version && current != options.if_version) {
      return absl::AbortedError(current ? "the object is of another version"
                                        : "the object is gone");
    }
    PEERCHUNK_RETURN_IF_ERROR(WhileFoldersVanish([&]() -> absl::Status {
      PEERCHUNK_RETURN_IF_ERROR(folder_.MakeFolder(SidecarFolder(path)));
      return folder_.ReplaceFile(absl::StrCat(SidecarFolder(path), "/", version), text);
    }));
    const absl::Status renamed =
        WhileFoldersVanish([&] { return Rename(pending, path, options.if_absent); });
    RemoveSidecars(path, renamed.ok() ? version : current.value_or(""));
    PEERCHUNK_RETURN_IF_ERROR(renamed);
  }
  PEERCHUNK_RETURN_IF_ERROR(SyncFoldersOf(path));
  return ObjectStat{sidecar.size, sidecar.crc32c, version, sidecar.metadata};
}

absl::StatusOr<uint64_t> LocalFolder::DeleteBelow(
    std::string_view path, const std::function<absl::Status()>& still_wanted) const {
  PEERCHUNK_ASSIGN_OR_RETURN(const LocalTree objects, LocalTree::Walk(folder_, path));
  PEERCHUNK_ASSIGN_OR_RETURN(const LocalTree sidecars,
                             LocalTree::Walk(folder_, SidecarFolder(path)));
  uint64_t deleted = 0;
  // A build's metadata.json says that the rest is there: it goes first.
  std::vector<std::string> files = objects.files;
  std::stable_partition(files.begin(), files.end(), [](const std::string& file) {
    return file.ends_with(FileName(FileKind::kMetadata));
  });
  for (const std::string& object : files) {
    PEERCHUNK_RETURN_IF_ERROR(still_wanted());
    PEERCHUNK_ASSIGN_OR_RETURN(const File lock, LockPath(object));
    const absl::Status removed = folder_.Remove(object);
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    if (removed.ok()) ++deleted;
    RemoveSidecars(object, "");
  }
  // Sidecars whose objects never appeared, or went without this provider.
  for (const std::string& folder : sidecars.folders) {
    const std::string_view object = std::string_view(folder).substr(sizeof kSidecars);
    PEERCHUNK_ASSIGN_OR_RETURN(const File lock, LockPath(object));
    PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<std::string> current, CurrentVersion(object));
    if (!current) RemoveSidecars(object, "");
  }
  // A folder in which someone writes an object now is not empty, or is made again by that writer.
  objects.RemoveEmptyFolders(folder_);
  sidecars.RemoveEmptyFolders(folder_);
  PEERCHUNK_RETURN_IF_ERROR(SyncFoldersOf(path));
  return deleted;
}

absl::Status LocalFolder::Missing() const {
  const absl::StatusOr<bool> there = folder_.Contains(kReserved);
  if (there.ok() && *there) return absl::NotFoundError("no such object");
  return Gone();
}

absl::StatusOr<std::optional<std::string>> LocalFolder::CurrentVersion(
    std::string_view path) const {
  const absl::StatusOr<File> file = folder_.OpenAt(path, O_RDONLY | O_NONBLOCK);
  if (FoundNothing(file.status())) return std::nullopt;
  if (!file.ok()) return file.status();
  PEERCHUNK_ASSIGN_OR_RETURN(const struct stat info, Inspect(*file));
  if (!S_ISREG(info.st_mode)) return std::nullopt;
  return Version(info);
}

absl::StatusOr<File> LocalFolder::LockPath(std::string_view path) const {
  const std::string name = absl::StrCat(kLocks, "/", Crc32c(path) % kLockFiles);
  PEERCHUNK_ASSIGN_OR_RETURN(File file, folder_.OpenAt(name, O_RDWR | O_CREAT));
  PEERCHUNK_RETURN_IF_ERROR(Lock(file));
  return file;
}

absl::Status LocalFolder::Rename(TemporaryFile& pending, std::string_view path,
                                 bool if_absent) const {
  const size_t slash = path.rfind('/');
  const std::string leaf(slash == std::string_view::npos ? path : path.substr(slash + 1));
  const std::string_view parent = slash == std::string_view::npos ? "." : path.substr(0, slash);
  if (parent != ".") PEERCHUNK_RETURN_IF_ERROR(folder_.MakeFolder(parent));
  PEERCHUNK_ASSIGN_OR_RETURN(const File into, folder_.OpenAt(parent, O_RDONLY | O_DIRECTORY));
  return pending.MoveTo(into, leaf, if_absent);
}

void LocalFolder::RemoveSidecars(std::string_view path, std::string_view except_version) const {
  const absl::StatusOr<File> folder = folder_.OpenAt(SidecarFolder(path), O_RDONLY | O_DIRECTORY);
  if (!folder.ok()) return;
  const absl::StatusOr<std::vector<std::string>> names = folder->List();
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    // Fails for folders, which belong to objects further down. What stays is stale but harmless: it
    // names an inode and time that do not come again.
    if (name != except_version) unlinkat(folder->fd(), name.c_str(), 0);
  }
}

absl::Status LocalFolder::SyncFoldersOf(std::string_view path) const {
  for (size_t slash = path.rfind('/'); slash != std::string_view::npos;) {
    path = path.substr(0, slash);
    slash = path.rfind('/');
    const absl::StatusOr<File> folder = folder_.OpenAt(path, O_RDONLY | O_DIRECTORY);
    if (absl::IsNotFound(folder.status())) continue;  // Deleted since.
    PEERCHUNK_RETURN_IF_ERROR(folder.status());
    PEERCHUNK_RETURN_IF_ERROR(folder->Sync());
  }
  return folder_.Sync();
}

}  // namespace peerchunk
