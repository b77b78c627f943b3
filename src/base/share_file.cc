#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include <absl/strings/str_cat.h>

#include "base/rename.h"
#include "base/sparse_file.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

absl::Status CopyRange(const File& source, uint64_t begin, uint64_t end, const File& target,
                       absl::Span<char> buffer) {
  while (begin < end) {
    const size_t want = static_cast<size_t>(std::min<uint64_t>(buffer.size(), end - begin));
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, source.ReadAt(begin, buffer.subspan(0, want)));
    if (got != want) return absl::FailedPreconditionError("the source shrank while it was copied");
    PEERCHUNK_RETURN_IF_ERROR(target.WriteAt(begin, std::string_view(buffer.data(), got)));
    begin += got;
  }
  return absl::OkStatus();
}

absl::Status CopyData(const File& source, uint64_t size, const File& target) {
  const auto buffer = std::make_unique_for_overwrite<char[]>(kMiB);
  for (uint64_t offset = 0; offset < size;) {
    PEERCHUNK_ASSIGN_OR_RETURN(const FileSegment segment, SegmentAt(source, offset, size));
    if (!segment.hole) {
      PEERCHUNK_RETURN_IF_ERROR(CopyRange(source, segment.begin, segment.end, target,
                                          absl::MakeSpan(buffer.get(), kMiB)));
    }
    offset = segment.end;
  }
  return target.Truncate(size);
}

bool SameTime(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

absl::Status Copy(const File& source, const struct stat& before, const File& target) {
  PEERCHUNK_RETURN_IF_ERROR(CopyData(source, static_cast<uint64_t>(before.st_size), target));
  struct stat after = {};
  if (fstat(source.fd(), &after) != 0) return ErrnoStatus(errno, "fstat");
  if (after.st_size != before.st_size || !SameTime(after.st_mtim, before.st_mtim)) {
    return absl::FailedPreconditionError("the source changed while it was copied");
  }
  return absl::OkStatus();
}

// Fills `target`, or links the source as `leaf` at once. The caller names or removes the target.
absl::StatusOr<Handover> Fill(const File& source, const struct stat& info, const File& target,
                              const File& parent, const std::string& leaf) {
  if (ioctl(target.fd(), FICLONE, source.fd()) == 0) return Handover::kReflink;
  // Through /proc, so that what is linked is the file that was opened, not what the path names now.
  const std::string opened = absl::StrCat("/proc/self/fd/", source.fd());
  if (linkat(AT_FDCWD, opened.c_str(), parent.fd(), leaf.c_str(), AT_SYMLINK_FOLLOW) == 0) {
    return Handover::kHardLink;
  }
  if (errno == EEXIST) return absl::AlreadyExistsError(absl::StrCat(leaf, " exists"));
  PEERCHUNK_RETURN_IF_ERROR(Copy(source, info, target));
  return Handover::kCopy;
}

absl::StatusOr<Handover> Share(const std::string& path, const File& folder, std::string_view name) {
  PEERCHUNK_ASSIGN_OR_RETURN(const File source, File::Open(path, O_RDONLY | O_NONBLOCK));
  struct stat info = {};
  if (fstat(source.fd(), &info) != 0) return ErrnoStatus(errno, "fstat");
  if (!S_ISREG(info.st_mode)) return absl::FailedPreconditionError("not a regular file");

  const size_t slash = name.rfind('/');
  const std::string leaf(slash == std::string_view::npos ? name : name.substr(slash + 1));
  PEERCHUNK_ASSIGN_OR_RETURN(
      const File parent,
      folder.OpenAt(slash == std::string_view::npos ? "." : name.substr(0, slash),
                    O_RDONLY | O_DIRECTORY));
  PEERCHUNK_ASSIGN_OR_RETURN(const bool exists, parent.Contains(leaf));
  if (exists) return absl::AlreadyExistsError(absl::StrCat(leaf, " exists"));

  // Under a temporary name first, so that `name` is never seen in part.
  const std::string temporary = TemporaryName();
  PEERCHUNK_ASSIGN_OR_RETURN(const File target,
                             parent.OpenAt(temporary, O_WRONLY | O_CREAT | O_EXCL));
  absl::StatusOr<Handover> handover = Fill(source, info, target, parent, leaf);
  if (handover.ok() && *handover != Handover::kHardLink) {
    const absl::Status named = RenameNoReplace(parent.fd(), temporary, parent.fd(), leaf);
    if (named.ok()) return handover;
    handover = named;
  }
  unlinkat(parent.fd(), temporary.c_str(), 0);
  return handover;
}

}  // namespace

absl::StatusOr<Handover> ShareFile(const std::string& source, const File& folder,
                                   std::string_view name) {
  absl::StatusOr<Handover> handover = Share(source, folder, name);
  if (handover.ok()) return handover;
  return Annotate(handover.status(), absl::StrCat("share ", source, " as ", AbslView(name)));
}

}  // namespace peerchunk
