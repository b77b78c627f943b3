#pragma once

#include <string>
#include <string_view>

#include <absl/status/status.h>

namespace peerchunk {

// Renames `from` in folder `from_fd` to `to` in folder `to_fd` in one step. AlreadyExists, and
// nothing changed, when `to` is there.
absl::Status RenameNoReplace(int from_fd, const std::string& from, int to_fd,
                             const std::string& to);

// A name no other writer uses at the same time, in any process: ".tmp-" and 32 random digits.
std::string TemporaryName();
// Whether it looks like one.
bool IsTemporaryName(std::string_view name);

}  // namespace peerchunk
