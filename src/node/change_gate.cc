#include "node/change_gate.h"

namespace peerchunk {

std::optional<ChangeGate::Pass> ChangeGate::Enter(const BuildId& id, Change change) {
  const MutexLock lock(mutex_);
  if (closed_) return std::nullopt;
  return Pass(this, changes_.emplace(id, change));
}

ChangeGate::Pass::~Pass() {
  if (gate_ == nullptr) return;
  const MutexLock lock(gate_->mutex_);
  gate_->changes_.erase(at_);
  gate_->left_.NotifyAll();  // Under the lock: who waits may be about to destroy the gate.
}

void ChangeGate::Close() {
  const MutexLock lock(mutex_);
  closed_ = true;
}

void ChangeGate::WaitUntilEmpty(absl::Time deadline) {
  const MutexLock lock(mutex_);
  while (!changes_.empty() && clock_->Now() < deadline) {
    clock_->WaitUntil(left_, mutex_, deadline);
  }
}

std::vector<std::pair<BuildId, ChangeGate::Change>> ChangeGate::UnderWay() const {
  const MutexLock lock(mutex_);
  return {changes_.begin(), changes_.end()};
}

}  // namespace peerchunk
