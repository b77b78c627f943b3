#include "service/active_calls.h"

namespace peerchunk {

absl::StatusOr<ActiveCalls::Admission> ActiveCalls::Admit(const std::string& peer) {
  MutexLock lock(mutex_);
  if (count_ >= max_calls_) {
    return absl::ResourceExhaustedError("this node serves as many streams as it may");
  }
  size_t& of_peer = by_peer_[peer];
  if (of_peer >= max_calls_per_peer_) {
    return absl::ResourceExhaustedError("this node serves you as many streams as it may");
  }
  ++of_peer;
  ++count_;
  return Admission(this, peer);
}

void ActiveCalls::Leave(const std::string& peer) {
  MutexLock lock(mutex_);
  --count_;
  const auto it = by_peer_.find(peer);
  if (--it->second == 0) by_peer_.erase(it);
}

size_t ActiveCalls::count() const {
  MutexLock lock(mutex_);
  return count_;
}

}  // namespace peerchunk
