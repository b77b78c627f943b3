#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/file.h"

namespace peerchunk {

// What was found below one folder, by paths relative to `root`. Symbolic links are not followed.
struct LocalTree {
  std::vector<std::string> files;    // Plain files.
  std::vector<std::string> folders;  // The folder itself first; each before what it holds.

  // Empty when there is no folder at `path`. Entries that vanish during the walk are left out.
  static absl::StatusOr<LocalTree> Walk(const File& root, std::string_view path);

  // Removes the folders that are empty, deepest first.
  void RemoveEmptyFolders(const File& root) const;
};

}  // namespace peerchunk
