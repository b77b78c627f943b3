#include "mount/mount_point.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>

#include <absl/strings/match.h>
#include <absl/strings/str_split.h>

#include "base/default_paths.h"
#include "base/logging.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// Mount tables write blanks, newlines and backslashes as three octal digits.
std::string Unescape(absl::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                 (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

absl::StatusOr<std::string> ReadProcFile(const std::string& path) {
  PEERCHUNK_ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
  std::string text;
  while (true) {  // Its size is not known before.
    std::array<char, 16 * 1024> piece;
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(text.size(), absl::MakeSpan(piece)));
    if (got == 0) return text;
    text.append(piece.data(), got);
  }
}

absl::StatusOr<std::optional<MountEntry>> TopMountAt(const std::string& path) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::string table, ReadProcFile("/proc/self/mountinfo"));
  std::optional<MountEntry> top;
  for (MountEntry& entry : ParseMountTable(table)) {
    if (entry.path == path) top = std::move(entry);
  }
  return top;
}

// Whether the process that served the file system is gone. Asks a live one for an answer: not by
// stat, which the kernel answers for the dead while it remembers their attributes.
bool ServerGone(const std::string& path) {
  struct statvfs found {};
  return ::statvfs(path.c_str(), &found) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

absl::Status InUse(const std::string& path, const MountEntry& mounted) {
  return absl::AlreadyExistsError(
      absl::StrCat(path, " is in use: ", mounted.source, " (", mounted.type,
                   ") is mounted there. Unmount it, or choose another path"));
}

// As root, or as the user whose mount it is; true when it is gone.
bool UnmountStale(const std::string& path) {
  if (umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) return true;
  if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || errno == EINVAL) return true;
  if (errno != EPERM) return false;
  std::string program = "fusermount3";
  std::string flags = "-uqz";
  std::string end_of_flags = "--";
  std::string folder = path;
  char* const arguments[] = {program.data(), flags.data(), end_of_flags.data(), folder.data(),
                             nullptr};
  pid_t pid = 0;
  int status = 0;
  const bool ended =
      posix_spawnp(&pid, program.c_str(), nullptr, nullptr, arguments, environ) == 0 &&
      waitpid(pid, &status, 0) == pid && status == 0;
  errno = EPERM;  // What a failure is about.
  return ended;
}

// Unmounts what dead processes of ours left at `path`; AlreadyExists for any other mount there.
absl::Status ClearStaleMounts(const std::string& path) {
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<MountEntry> mounted, TopMountAt(path));
    if (!mounted) return absl::OkStatus();
    if (mounted->type != kMountType || !ServerGone(path)) return InUse(path, *mounted);
    if (!UnmountStale(path)) {
      return Annotate(ErrnoStatus(errno, path),
                      "unmount what a dead process left (try: fusermount3 -uz " + path +
                          ", or as root umount -l " + path + ")");
    }
    Logger("mount").warn("event=stale_mount_removed path={} source={}", path, mounted->source);
  }
}

}  // namespace

absl::StatusOr<std::string> ResolveMountPath(const std::string& path) {
  std::filesystem::path whole(AbsolutePath(path));
  struct stat found {};
  std::error_code error;
  if (lstat(whole.c_str(), &found) == 0 && S_ISLNK(found.st_mode)) {
    whole = std::filesystem::canonical(whole, error);
  } else if (whole.has_filename()) {
    whole = std::filesystem::weakly_canonical(whole.parent_path(), error) / whole.filename();
  }
  if (error) return ErrnoStatus(error.value(), path);
  return whole.string();
}

std::vector<MountEntry> ParseMountTable(std::string_view text) {
  std::vector<MountEntry> entries;
  for (const absl::string_view line : absl::StrSplit(AbslView(text), '\n', absl::SkipEmpty())) {
    // id parent major:minor root path options [optional fields] - type source options
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    size_t dash = 6;
    while (dash < fields.size() && fields[dash] != "-") ++dash;
    if (dash + 2 >= fields.size()) continue;
    entries.push_back({.path = Unescape(fields[4]),
                       .device = std::string(fields[2]),
                       .type = Unescape(fields[dash + 1]),
                       .source = Unescape(fields[dash + 2])});
  }
  return entries;
}

absl::Status CheckFuseDevice(const std::string& device) {
  const absl::StatusOr<File> opened = File::Open(device, O_RDWR);
  if (opened.ok()) return absl::OkStatus();
  if (absl::IsPermissionDenied(opened.status())) {
    return absl::FailedPreconditionError(absl::StrCat(
        device,
        " may not be opened by this user: mounting needs root, or read and write access to "
        "it and fusermount3 (package fuse3)"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "mounting needs ", device, ", which cannot be opened (", opened.status().ToString(),
      "): load the kernel's module (modprobe fuse), or give the container the device (docker run "
      "--device /dev/fuse --cap-add SYS_ADMIN)"));
}

absl::StatusOr<MountPoint> MountPoint::ClaimAt(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("the path to mount at is empty");
  std::error_code error;
  // May fail on a mount whose server is dead; what is really wrong shows below.
  std::filesystem::create_directories(path, error);
  PEERCHUNK_ASSIGN_OR_RETURN(std::string canonical, ResolveMountPath(path));
  PEERCHUNK_RETURN_IF_ERROR(ClearStaleMounts(canonical));
  PEERCHUNK_ASSIGN_OR_RETURN(File folder, File::Open(canonical, O_RDONLY | O_DIRECTORY));
  if (flock(folder.fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock " + canonical);
    return absl::AlreadyExistsError(absl::StrCat(
        canonical, " is in use: another process is mounting there, or has just unmounted"));
  }
  // Someone may have mounted between the first look and the lock.
  PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<MountEntry> mounted, TopMountAt(canonical));
  if (mounted) return InUse(canonical, *mounted);
  return MountPoint(std::move(canonical), std::move(folder));
}

absl::StatusOr<std::optional<MountEntry>> MountPoint::Mounted() const { return TopMountAt(path_); }

}  // namespace peerchunk
