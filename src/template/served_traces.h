#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/build_file.h"
#include "peerchunk/template/build_registry.h"
#include "template/working_set.h"

namespace peerchunk {

// What other nodes read first of the builds paused here, put into their metadata for whoever
// resumes them next. A trace begins when a build's memory header is served, takes the demand reads
// of every layer that the header maps, and ends a while after the first of them; then, or when
// reads pause, it replaces metadata.json. A `prefetch` that this process has not written is left
// alone. One trace per build and process, in bounded memory. Part of a TemplateCache; thread-safe.
class ServedTraces {
 public:
  // Borrowed. `on_replaced` hears of each build whose metadata has a new version; may be empty.
  ServedTraces(BuildRegistry* registry, Clock* clock,
               std::function<void(const BuildId&)> on_replaced)
      : registry_(registry), clock_(clock), on_replaced_(std::move(on_replaced)) {}

  // A peer asks for the memory header of a build paused here: it is about to resume it.
  void Begin(const RecordedBuild& build);
  // `file`, or one that notes what peers read of it while the traces that run now do.
  std::shared_ptr<BuildFile> Watch(std::shared_ptr<BuildFile> file);
  // Writes what has settled. Blocks on the disk; from one thread at a time.
  void SaveSettled();

 private:
  class WatchedFile;
  struct Trace;

  absl::Status Save(Trace& trace);
  enum class Fate : uint8_t { kGoesOn, kEnded, kDropped };
  Fate SaveOrEnd(Trace& trace);

  BuildRegistry* const registry_;
  Clock* const clock_;
  const std::function<void(const BuildId&)> on_replaced_;

  std::atomic<size_t> running_{0};  // traces_.size(), to be read without the lock.
  Mutex mutex_;
  std::map<BuildId, std::shared_ptr<Trace>> traces_ PEERCHUNK_GUARDED_BY(mutex_);
  std::set<BuildId> ended_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
