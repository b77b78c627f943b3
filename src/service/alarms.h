#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <utility>

#include <absl/container/flat_hash_map.h>
#include <absl/time/time.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk {

// Runs closures at their time, on one thread of its own; they must not block. Thread-safe. The
// destructor drops what has not come.
class Alarms {
 public:
  using Id = uint64_t;

  explicit Alarms(Clock* clock);  // Borrowed.
  ~Alarms();

  Id At(absl::Time time, std::function<void()> then);
  // True: it does not run any more. Does not wait for one that runs.
  bool Cancel(Id id);

 private:
  void Work();

  Clock* const clock_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  Id last_id_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  std::map<std::pair<absl::Time, Id>, std::function<void()>> waiting_ PEERCHUNK_GUARDED_BY(mutex_);
  absl::flat_hash_map<Id, absl::Time> times_ PEERCHUNK_GUARDED_BY(mutex_);
  std::thread thread_;  // Last: it uses all of the above.
};

}  // namespace peerchunk
