#include "base/rename.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/status.h"

namespace peerchunk {

absl::Status RenameNoReplace(int from_fd, const std::string& from, int to_fd,
                             const std::string& to) {
  if (renameat2(from_fd, from.c_str(), to_fd, to.c_str(), RENAME_NOREPLACE) == 0) {
    return absl::OkStatus();
  }
  if (errno == EINVAL || errno == ENOSYS) {  // File systems without the flag: NFS, some FUSE.
    if (linkat(from_fd, from.c_str(), to_fd, to.c_str(), 0) != 0) return ErrnoStatus(errno, to);
    unlinkat(from_fd, from.c_str(), 0);
    return absl::OkStatus();
  }
  return ErrnoStatus(errno, to);
}

std::string TemporaryName() {
  const BuildId random = BuildId::Random();
  return absl::StrCat(".tmp-",
                      absl::BytesToHexString(absl::string_view(
                          reinterpret_cast<const char*>(random.bytes().data()), BuildId::kBytes)));
}

}  // namespace peerchunk
