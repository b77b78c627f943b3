#include "base/temporary_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "base/rename.h"
#include "peerchunk/base/status.h"

namespace peerchunk {

absl::StatusOr<TemporaryFile> TemporaryFile::Create(const File& folder) {
  while (true) {
    std::string name = TemporaryName();
    PEERCHUNK_ASSIGN_OR_RETURN(File file, folder.OpenAt(name, O_RDWR | O_CREAT | O_EXCL));
    TemporaryFile made(folder, std::move(name), std::move(file));
    while (flock(made.file().fd(), LOCK_EX) != 0) {
      if (errno != EINTR) return ErrnoStatus(errno, "lock");
    }
    struct stat info = {};
    if (fstat(made.file().fd(), &info) != 0) return ErrnoStatus(errno, "fstat");
    if (info.st_nlink > 0) return made;
    // Taken for a leftover between its creation and its lock.
  }
}

void TemporaryFile::RemoveLeftovers(const File& folder) {
  const absl::StatusOr<std::vector<std::string>> names = folder.List();
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (!IsTemporaryName(name)) continue;
    const absl::StatusOr<File> file = folder.OpenAt(name, O_RDWR | O_NONBLOCK);
    if (file.ok() && flock(file->fd(), LOCK_EX | LOCK_NB) == 0) {
      unlinkat(folder.fd(), name.c_str(), 0);
    }
  }
}

TemporaryFile::~TemporaryFile() {
  if (file_.is_open() && !name_.empty()) unlinkat(folder_->fd(), name_.c_str(), 0);
}

absl::Status TemporaryFile::MoveTo(const File& into, const std::string& name, bool if_absent) {
  if (if_absent) {
    PEERCHUNK_RETURN_IF_ERROR(RenameNoReplace(folder_->fd(), name_, into.fd(), name));
  } else if (renameat(folder_->fd(), name_.c_str(), into.fd(), name.c_str()) != 0) {
    return ErrnoStatus(errno, "rename to " + name);
  }
  name_.clear();
  return absl::OkStatus();
}

}  // namespace peerchunk
