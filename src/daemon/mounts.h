#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/template/template.h"

namespace peerchunk {

// The mounts that this daemon made, by path: absolute, without symbolic links. The destructor
// unmounts them all. Thread-safe.
class Mounts {
 public:
  // What guests write goes into folders of their own under `overlay_folder`, which is nobody
  // else's: empty ones that a killed daemon left there are removed. `metrics` is borrowed.
  Mounts(std::string overlay_folder, Metrics* metrics);
  ~Mounts();

  // However the path is written. AlreadyExists: something is mounted there by this daemon.
  // Unavailable after RemoveAll. Unimplemented: built without the mount.
  absl::Status Add(std::shared_ptr<Template> build, const std::string& mount_path);
  absl::Status Remove(const std::string& mount_path);  // NotFound
  // For good: nothing is mounted afterwards.
  void RemoveAll();

  std::vector<std::string> Paths() const;
  // Where a build is mounted; empty: nowhere. Of several, the first by name.
  std::string PathOf(const BuildId& build) const;

 private:
  struct Mount;

  const std::string overlay_folder_;
  [[maybe_unused]] Metrics* const metrics_;  // Unused where the mount was not built.
  mutable Mutex mutex_;
  // Null while the mount is being made: the path is taken.
  std::map<std::string, std::unique_ptr<Mount>> by_path_ PEERCHUNK_GUARDED_BY(mutex_);
  bool closed_ PEERCHUNK_GUARDED_BY(mutex_) = false;
};

}  // namespace peerchunk
