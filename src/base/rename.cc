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

namespace {

constexpr std::string_view kPrefix = ".tmp-";

}  // namespace

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
  return absl::StrCat(AbslView(kPrefix),
                      absl::BytesToHexString(absl::string_view(
                          reinterpret_cast<const char*>(random.bytes().data()), BuildId::kBytes)));
}

bool IsTemporaryName(std::string_view name) {
  return name.starts_with(kPrefix) && name.size() == kPrefix.size() + 2 * BuildId::kBytes &&
         name.find_first_not_of("0123456789abcdef", kPrefix.size()) == std::string_view::npos;
}

}  // namespace peerchunk
