#include "storage/local_tree.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/status.h"

namespace peerchunk {

absl::StatusOr<LocalTree> LocalTree::Walk(const File& root, std::string_view path) {
  LocalTree tree;
  std::vector<std::string> pending = {std::string(path)};
  while (!pending.empty()) {
    const std::string folder_path = std::move(pending.back());
    pending.pop_back();
    const absl::StatusOr<File> folder = root.OpenAt(folder_path, O_RDONLY | O_DIRECTORY);
    if (absl::IsNotFound(folder.status()) || absl::IsFailedPrecondition(folder.status())) continue;
    PEERCHUNK_RETURN_IF_ERROR(folder.status());
    PEERCHUNK_ASSIGN_OR_RETURN(const std::vector<std::string> names, folder->List());
    for (const std::string& name : names) {
      struct stat info = {};
      if (fstatat(folder->fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
      std::string entry = absl::StrCat(folder_path, "/", name);
      if (S_ISDIR(info.st_mode)) {
        pending.push_back(std::move(entry));
      } else if (S_ISREG(info.st_mode)) {
        tree.files.push_back(std::move(entry));
      }
    }
    tree.folders.push_back(folder_path);
  }
  return tree;
}

void LocalTree::RemoveEmptyFolders(const File& root) const {
  for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) {
    const size_t slash = folder->rfind('/');
    const absl::StatusOr<File> parent = root.OpenAt(
        slash == std::string::npos ? "." : folder->substr(0, slash), O_RDONLY | O_DIRECTORY);
    if (parent.ok()) unlinkat(parent->fd(), folder->substr(slash + 1).c_str(), AT_REMOVEDIR);
  }
}

}  // namespace peerchunk
