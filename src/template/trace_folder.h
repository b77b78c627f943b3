#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <absl/status/statusor.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/file.h"
#include "template/working_set.h"

namespace peerchunk {

// The working sets that this node saw of builds paused elsewhere, for its own next resume of them:
// a small file each, "<build id>.json", of which the latest are kept. Thread-safe.
class TraceFolder {
 public:
  static constexpr size_t kMaxTraces = 1024;

  static absl::StatusOr<TraceFolder> Open(const std::string& path);

  // Nothing when there is none that fits a memory of `device_bytes`.
  std::optional<WorkingSet> Load(const BuildId& build, uint64_t device_bytes) const;
  absl::Status Save(const BuildId& build, const WorkingSet& set) const;
  void Forget(const BuildId& build) const;

 private:
  explicit TraceFolder(File folder) : folder_(std::move(folder)) {}
  void RemoveOldest() const;

  File folder_;
};

}  // namespace peerchunk
