#include "peerchunk/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include <absl/strings/str_cat.h>

#include "base/rename.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

absl::Status CheckName(std::string_view name) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("file name '", AbslView(name), "': ", AbslView(why)));
  };
  if (name.empty()) return refuse("empty");
  if (name.front() == '/') return refuse("absolute");
  if (name.find('\0') != std::string_view::npos) return refuse("holds a NUL");
  size_t start = 0;
  while (start <= name.size()) {
    const size_t end = std::min(name.find('/', start), name.size());
    if (name.substr(start, end - start) == "..") return refuse("holds '..'");
    start = end + 1;
  }
  return absl::OkStatus();
}

// Offsets reach system calls as signed numbers.
absl::Status CheckOffset(uint64_t offset, uint64_t length) {
  constexpr auto kMax = static_cast<uint64_t>(INT64_MAX);
  if (offset > kMax || length > kMax - offset) {
    return absl::InvalidArgumentError("file offset is out of range");
  }
  return absl::OkStatus();
}

// The folder that holds the last part of a name, and that part.
struct Place {
  File folder;
  std::string leaf;
};

absl::StatusOr<Place> ResolveParent(const File& folder, std::string_view name) {
  PEERCHUNK_RETURN_IF_ERROR(CheckName(name));
  const size_t slash = name.rfind('/');
  const std::string_view parent = slash == std::string_view::npos ? "." : name.substr(0, slash);
  const std::string_view leaf = slash == std::string_view::npos ? name : name.substr(slash + 1);
  if (leaf.empty() || leaf == ".") {
    return absl::InvalidArgumentError(
        absl::StrCat("file name '", AbslView(name), "' does not end in a name"));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(File opened, folder.OpenAt(parent, O_RDONLY | O_DIRECTORY));
  return Place{std::move(opened), std::string(leaf)};
}

// Empties and removes the folder `name` in `parent_fd`. Links are removed, not followed.
absl::Status RemoveFolder(int parent_fd, const std::string& name) {
  File folder(openat(parent_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder.is_open()) {
    return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, name);
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const std::vector<std::string> entries, folder.List());
  for (const std::string& entry : entries) {
    if (unlinkat(folder.fd(), entry.c_str(), 0) == 0 || errno == ENOENT) continue;
    if (errno != EISDIR && errno != EPERM) return ErrnoStatus(errno, entry);
    PEERCHUNK_RETURN_IF_ERROR(RemoveFolder(folder.fd(), entry));
  }
  if (unlinkat(parent_fd, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, name);
  }
  return absl::OkStatus();
}

}  // namespace

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

File::~File() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<File> File::Open(const std::string& path, int flags, mode_t mode) {
  while (true) {
    const int fd = open(path.c_str(), flags | O_CLOEXEC, mode);
    if (fd >= 0) return File(fd);
    if (errno != EINTR) return ErrnoStatus(errno, absl::StrCat("open ", path));
  }
}

absl::StatusOr<File> File::OpenAt(std::string_view name, int flags, mode_t mode) const {
  PEERCHUNK_RETURN_IF_ERROR(CheckName(name));
  const std::string path(name);
  open_how how = {};
  how.flags = static_cast<uint32_t>(flags | O_CLOEXEC);
  // openat2 refuses a mode where none is used.
  if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE) how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  while (true) {
    const auto fd = static_cast<int>(syscall(SYS_openat2, fd_, path.c_str(), &how, sizeof how));
    if (fd >= 0) return File(fd);
    // EAGAIN: a rename elsewhere raced with the walk, which then proves nothing.
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno == ELOOP || errno == EXDEV) {
      return absl::PermissionDeniedError(
          absl::StrCat("open ", path, ": leads through a symbolic link or out of the folder"));
    }
    return ErrnoStatus(errno, absl::StrCat("open ", path));
  }
}

absl::StatusOr<uint64_t> File::Size() const {
  struct stat info = {};
  if (fstat(fd_, &info) != 0) return ErrnoStatus(errno, "fstat");
  return static_cast<uint64_t>(info.st_size);
}

absl::StatusOr<uint64_t> File::AllocatedBytes() const {
  struct stat info = {};
  if (fstat(fd_, &info) != 0) return ErrnoStatus(errno, "fstat");
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

absl::StatusOr<size_t> File::ReadAt(uint64_t offset, absl::Span<char> out) const {
  PEERCHUNK_RETURN_IF_ERROR(CheckOffset(offset, out.size()));
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n == 0) break;
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      return ErrnoStatus(errno, absl::StrCat("read at ", offset + done));
    }
  }
  return done;
}

bool File::ReadAtIfInMemory(uint64_t offset, absl::Span<char> out) const {
  if (!CheckOffset(offset, out.size()).ok()) return false;
  const iovec into{out.data(), out.size()};
  // Short where memory ends, or the file; EAGAIN, EOPNOTSUPP.
  const ssize_t n = preadv2(fd_, &into, 1, static_cast<off_t>(offset), RWF_NOWAIT);
  return n >= 0 && static_cast<size_t>(n) == out.size();
}

absl::Status File::WriteAt(uint64_t offset, std::string_view data) const {
  return WriteVectorAt(offset, absl::MakeConstSpan(&data, 1));
}

absl::Status File::WriteVectorAt(uint64_t offset, absl::Span<const std::string_view> pieces) const {
  constexpr size_t kMaxPieces = 64;
  uint64_t length = 0;
  for (const std::string_view piece : pieces) length += piece.size();
  PEERCHUNK_RETURN_IF_ERROR(CheckOffset(offset, length));
  size_t written_of_first = 0;
  while (!pieces.empty()) {
    if (written_of_first == pieces.front().size()) {
      pieces.remove_prefix(1);
      written_of_first = 0;
      continue;
    }
    std::array<iovec, kMaxPieces> vectors;
    const size_t count = std::min(pieces.size(), kMaxPieces);
    for (size_t i = 0; i < count; ++i) {
      const std::string_view piece = pieces[i].substr(i == 0 ? written_of_first : 0);
      vectors[i] = {const_cast<char*>(piece.data()), piece.size()};
    }
    const ssize_t n =
        pwritev(fd_, vectors.data(), static_cast<int>(count), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, absl::StrCat("write at ", offset));
    }
    offset += static_cast<uint64_t>(n);
    written_of_first += static_cast<size_t>(n);
    while (!pieces.empty() && written_of_first >= pieces.front().size()) {
      written_of_first -= pieces.front().size();
      pieces.remove_prefix(1);
    }
  }
  return absl::OkStatus();
}

absl::Status File::Truncate(uint64_t size) const {
  PEERCHUNK_RETURN_IF_ERROR(CheckOffset(size, 0));
  while (ftruncate(fd_, static_cast<off_t>(size)) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, absl::StrCat("truncate to ", size));
  }
  return absl::OkStatus();
}

absl::Status File::Sync() const {
  while (fsync(fd_) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "fsync");
  }
  return absl::OkStatus();
}

absl::Status File::MakeFolder(std::string_view name) const {
  PEERCHUNK_RETURN_IF_ERROR(CheckName(name));
  size_t end = 0;
  while (end < name.size()) {
    end = std::min(name.find('/', end), name.size());
    const std::string_view prefix = name.substr(0, end++);
    if (prefix.empty() || prefix == "." || prefix.ends_with("/.") || prefix.ends_with('/'))
      continue;
    PEERCHUNK_ASSIGN_OR_RETURN(const Place place, ResolveParent(*this, prefix));
    if (mkdirat(place.folder.fd(), place.leaf.c_str(), 0750) == 0) continue;
    if (errno != EEXIST) return ErrnoStatus(errno, absl::StrCat("make folder ", AbslView(prefix)));
    PEERCHUNK_RETURN_IF_ERROR(OpenAt(prefix, O_RDONLY | O_DIRECTORY));  // Something else's name?
  }
  return absl::OkStatus();
}

absl::Status File::Remove(std::string_view name) const {
  PEERCHUNK_ASSIGN_OR_RETURN(const Place place, ResolveParent(*this, name));
  if (unlinkat(place.folder.fd(), place.leaf.c_str(), 0) != 0) {
    return ErrnoStatus(errno, absl::StrCat("remove ", AbslView(name)));
  }
  return absl::OkStatus();
}

absl::Status File::RemoveTree(std::string_view name) const {
  const absl::StatusOr<Place> place = ResolveParent(*this, name);
  if (absl::IsNotFound(place.status())) return absl::OkStatus();
  if (!place.ok()) return place.status();
  if (unlinkat(place->folder.fd(), place->leaf.c_str(), 0) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  if (errno != EISDIR && errno != EPERM) {
    return ErrnoStatus(errno, absl::StrCat("remove ", AbslView(name)));
  }
  const absl::Status removed = RemoveFolder(place->folder.fd(), place->leaf);
  return Annotate(removed, absl::StrCat("remove ", AbslView(name)));
}

absl::StatusOr<bool> File::Contains(std::string_view name) const {
  const absl::StatusOr<Place> place = ResolveParent(*this, name);
  if (absl::IsNotFound(place.status())) return false;
  if (!place.ok()) return place.status();
  struct stat info = {};
  if (fstatat(place->folder.fd(), place->leaf.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0)
    return true;
  if (errno == ENOENT) return false;
  return ErrnoStatus(errno, absl::StrCat("look for ", AbslView(name)));
}

absl::StatusOr<std::vector<std::string>> File::List() const {
  // A descriptor of its own: the position in a folder belongs to the open file.
  const int fd = openat(fd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "list folder");
  DIR* const folder = fdopendir(fd);
  if (folder == nullptr) {
    const int error = errno;
    close(fd);
    return ErrnoStatus(error, "list folder");
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(folder)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int error = errno;
  closedir(folder);
  if (error != 0) return ErrnoStatus(error, "list folder");
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<std::string> File::ReadSmallFile(std::string_view name, uint64_t limit_bytes) const {
  // O_NONBLOCK: opening a FIFO that someone put here must not hang.
  PEERCHUNK_ASSIGN_OR_RETURN(const File file, OpenAt(name, O_RDONLY | O_NONBLOCK));
  struct stat info = {};
  if (fstat(file.fd(), &info) != 0)
    return ErrnoStatus(errno, absl::StrCat("read ", AbslView(name)));
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("read ", AbslView(name), ": not a regular file"));
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size > limit_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "read ", AbslView(name), ": ", size, " bytes, more than the limit of ", limit_bytes));
  }
  std::string data(size, '\0');
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t read, file.ReadAt(0, absl::MakeSpan(data)));
  data.resize(read);
  return data;
}

absl::Status File::ReplaceFile(std::string_view name, std::string_view data) const {
  PEERCHUNK_ASSIGN_OR_RETURN(const Place place, ResolveParent(*this, name));
  const std::string temporary = TemporaryName();
  const absl::Status written = [&]() -> absl::Status {
    PEERCHUNK_ASSIGN_OR_RETURN(const File file,
                               place.folder.OpenAt(temporary, O_WRONLY | O_CREAT | O_EXCL));
    PEERCHUNK_RETURN_IF_ERROR(file.WriteAt(0, data));
    PEERCHUNK_RETURN_IF_ERROR(file.Sync());
    if (renameat(place.folder.fd(), temporary.c_str(), place.folder.fd(), place.leaf.c_str()) !=
        0) {
      return ErrnoStatus(errno, "rename");
    }
    return place.folder.Sync();
  }();
  if (!written.ok()) unlinkat(place.folder.fd(), temporary.c_str(), 0);
  return Annotate(written, absl::StrCat("replace ", AbslView(name)));
}

}  // namespace peerchunk
