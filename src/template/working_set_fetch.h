#pragma once

#include <memory>

#include "build/task_group.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/template/template.h"
#include "template/working_set.h"

namespace peerchunk {

// Brings a template's working set here in the background, in its order, a few pieces at a time.
// Ends when all is here, when the disk has no room to spare, when too much fails, when the template
// is gone, or when this is destroyed, which waits for nothing.
class WorkingSetFetch {
 public:
  struct Options {
    TaskGroup* tasks = nullptr;  // Borrowed; runs the transfers, so not what answers readers.
    Clock* clock = nullptr;
    absl::Duration timeout;      // Of one piece.
    Metrics* metrics = nullptr;  // Borrowed; may be null.
  };
  static std::unique_ptr<WorkingSetFetch> Start(std::weak_ptr<Template> fetched, WorkingSet set,
                                                const Options& options);
  ~WorkingSetFetch();

 private:
  struct State;
  explicit WorkingSetFetch(std::shared_ptr<State> state) : state_(std::move(state)) {}

  const std::shared_ptr<State> state_;
};

}  // namespace peerchunk
