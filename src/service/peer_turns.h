#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <string>

#include "peerchunk/base/executor.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk {

// An executor divided between peers: those with tasks waiting in a lane take turns, and the tasks
// of one peer run in order. So a peer with thousands of them holds up another one by a task, not by
// all of them. Borrows the executor, which runs nothing of this any more when it goes. Thread-safe.
class PeerTurns {
 public:
  explicit PeerTurns(Executor* executor) : executor_(executor) {}

  // As Executor::Run, in the turn of `peer`.
  void Run(const std::string& peer, Priority lane, std::function<void()> task);

 private:
  using Tasks = std::deque<std::function<void()>>;

  void RunNext(Priority lane);

  Executor* const executor_;
  Mutex mutex_;
  // By lane: the tasks of each peer that has some, and those peers, the next one first.
  std::array<std::map<std::string, Tasks>, 2> tasks_ PEERCHUNK_GUARDED_BY(mutex_);
  std::array<std::deque<std::string>, 2> turns_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
