#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/file.h"

namespace peerchunk {

// The type that the kernel's table shows for our mounts.
inline constexpr std::string_view kMountType = "fuse.peerchunk";

// One line of /proc/self/mountinfo.
struct MountEntry {
  std::string path;
  std::string device;  // "major:minor"; given to another mount once this one has ended.
  std::string type;
  std::string source;

  friend bool operator==(const MountEntry&, const MountEntry&) = default;
};

// Lines that are not understood are left out. Of two mounts at one path the later one is on top.
std::vector<MountEntry> ParseMountTable(std::string_view text);

// The name by which a mount at `path` is known, however the path is written: absolute, without
// symbolic links and without a slash at the end. The last component is not asked unless it is a
// link: it may be a mount whose server is dead. What is not there yet is taken as it is written.
absl::StatusOr<std::string> ResolveMountPath(const std::string& path);

// OK when `device` ("/dev/fuse") can be opened. FailedPrecondition says what to do.
absl::Status CheckFuseDevice(const std::string& device);

// A folder claimed for a mount. While this lives, no other process gets it by the same way.
class MountPoint {
 public:
  // Makes the folder when missing, and unmounts what a dead process of ours left there.
  // AlreadyExists: something is mounted there, or another process is about to.
  static absl::StatusOr<MountPoint> ClaimAt(const std::string& path);

  const std::string& path() const { return path_; }

  // The mount on top there now; nothing when there is none.
  absl::StatusOr<std::optional<MountEntry>> Mounted() const;

 private:
  MountPoint(std::string path, File lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  File lock_;  // The folder under the mount.
};

}  // namespace peerchunk
