#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <absl/time/time.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk {

// Lets changes of what a node keeps in until a drain closes it, and knows those that are under way:
// between them there is no moment at which a change was let in and is not known. Owned by the node;
// thread-safe.
class ChangeGate {
 public:
  enum class Change : uint8_t { kPause, kNewMetadata };

 private:
  using Changes = std::multimap<BuildId, Change>;

 public:
  // One change, under way until this goes. Move-only; must not outlive the gate.
  class Pass {
   public:
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)), at_(other.at_) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass();

   private:
    friend class ChangeGate;
    Pass(ChangeGate* gate, Changes::iterator at) : gate_(gate), at_(at) {}
    ChangeGate* gate_;
    Changes::iterator at_;
  };

  explicit ChangeGate(Clock* clock) : clock_(clock) {}

  // Nothing once the gate is closed.
  std::optional<Pass> Enter(const BuildId& id, Change change);
  void Close();
  // Until nothing is under way, or the deadline. Anything may come in again before Close.
  void WaitUntilEmpty(absl::Time deadline);
  std::vector<std::pair<BuildId, Change>> UnderWay() const;

 private:
  Clock* const clock_;  // Borrowed.
  mutable Mutex mutex_;
  CondVar left_;
  bool closed_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  Changes changes_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
