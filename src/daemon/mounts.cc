#include "daemon/mounts.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <utility>

#ifdef PEERCHUNK_HAVE_MOUNT
#include "mount/mount_point.h"
#include "peerchunk/mount/template_mount.h"
#endif

#include "peerchunk/base/status.h"

namespace peerchunk {

struct Mounts::Mount {
  BuildId build;
#ifdef PEERCHUNK_HAVE_MOUNT
  std::unique_ptr<TemplateMount> mount;
#endif
};

Mounts::Mounts(std::string overlay_folder, Metrics* metrics)
    : overlay_folder_(std::move(overlay_folder)), metrics_(metrics) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(overlay_folder_, error)) {
    rmdir(entry.path().c_str());
  }
}
Mounts::~Mounts() = default;

absl::Status Mounts::Add(std::shared_ptr<Template> build, const std::string& mount_path) {
#ifdef PEERCHUNK_HAVE_MOUNT
  const absl::Status leaving = absl::UnavailableError("this daemon is leaving: mount elsewhere");
  const absl::StatusOr<std::string> path = ResolveMountPath(mount_path);
  if (!path.ok()) return Annotate(path.status(), "mount at " + mount_path);
  {
    const MutexLock lock(mutex_);
    if (closed_) return leaving;
    if (!by_path_.emplace(*path, nullptr).second) {
      return absl::AlreadyExistsError(
          absl::StrCat(*path, " is a mount of this daemon already: peerchunk umount ", *path));
    }
  }
  auto made = std::make_unique<Mount>();
  made->build = build->id();
  auto mounted = TemplateMount::Mount(
      std::move(build), {.mount_path = *path,
                         .overlay_folder = overlay_folder_ + "/" + BuildId::Random().ToString(),
                         .metrics = metrics_});
  const MutexLock lock(mutex_);
  if (!mounted.ok()) {
    by_path_.erase(*path);
    return Annotate(mounted.status(), "mount at " + mount_path);
  }
  if (closed_) return leaving;  // And unmounted again, after the lock.
  made->mount = *std::move(mounted);
  by_path_[*path] = std::move(made);
  return absl::OkStatus();
#else
  return absl::UnimplementedError(
      absl::StrCat("mount build ", build->id().ToString(), " at ", mount_path,
                   ": this peerchunkd was built without libfuse3 (PEERCHUNK_WITH_MOUNT)"));
#endif
}

absl::Status Mounts::Remove(const std::string& mount_path) {
  std::string path = mount_path;
#ifdef PEERCHUNK_HAVE_MOUNT
  // What cannot be resolved is looked for as it is written.
  if (absl::StatusOr<std::string> resolved = ResolveMountPath(mount_path); resolved.ok()) {
    path = *std::move(resolved);
  }
#endif
  std::unique_ptr<Mount> removed;  // Unmounts when it goes, after the lock.
  const MutexLock lock(mutex_);
  const auto found = by_path_.find(path);
  if (found == by_path_.end() || found->second == nullptr) {
    return absl::NotFoundError(absl::StrCat(mount_path, " is not a mount of this daemon"));
  }
  removed = std::move(found->second);
  by_path_.erase(found);
  return absl::OkStatus();
}

void Mounts::RemoveAll() {
  std::map<std::string, std::unique_ptr<Mount>> removed;  // As above.
  const MutexLock lock(mutex_);
  closed_ = true;
  removed.swap(by_path_);
}

std::vector<std::string> Mounts::Paths() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> paths;
  for (const auto& [path, mount] : by_path_) {
    if (mount != nullptr) paths.push_back(path);
  }
  return paths;
}

std::string Mounts::PathOf(const BuildId& build) const {
  const MutexLock lock(mutex_);
  for (const auto& [path, mount] : by_path_) {
    if (mount != nullptr && mount->build == build) return path;
  }
  return "";
}

}  // namespace peerchunk
