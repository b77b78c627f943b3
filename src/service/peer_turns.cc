#include "service/peer_turns.h"

#include <utility>

namespace peerchunk {

void PeerTurns::Run(const std::string& peer, Priority lane, std::function<void()> task) {
  const auto index = static_cast<size_t>(lane);
  {
    const MutexLock lock(mutex_);
    Tasks& tasks = tasks_[index][peer];
    if (tasks.empty()) turns_[index].push_back(peer);
    tasks.push_back(std::move(task));
  }
  // One for each task, whichever that will run.
  executor_->Run(lane, [this, lane] { RunNext(lane); });
}

void PeerTurns::RunNext(Priority lane) {
  const auto index = static_cast<size_t>(lane);
  std::function<void()> task;
  {
    const MutexLock lock(mutex_);
    std::deque<std::string>& turns = turns_[index];
    const auto peer = tasks_[index].find(turns.front());
    task = std::move(peer->second.front());
    peer->second.pop_front();
    if (peer->second.empty()) {
      tasks_[index].erase(peer);
    } else {
      turns.push_back(std::move(turns.front()));
    }
    turns.pop_front();
  }
  task();
}

}  // namespace peerchunk
