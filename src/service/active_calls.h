#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>

#include <absl/status/statusor.h>

#include "peerchunk/base/mutex.h"

namespace peerchunk {

// Counts the calls under way, over all and per peer, and says when there are too many. Thread-safe.
class ActiveCalls {
 public:
  // One admitted call; the count falls when it goes.
  class Admission {
   public:
    Admission() = default;
    Admission(Admission&& other) noexcept
        : calls_(std::exchange(other.calls_, nullptr)), peer_(std::move(other.peer_)) {}
    Admission& operator=(Admission&&) = delete;
    ~Admission() {
      if (calls_ != nullptr) calls_->Leave(peer_);
    }

   private:
    friend class ActiveCalls;
    Admission(ActiveCalls* calls, std::string peer) : calls_(calls), peer_(std::move(peer)) {}
    ActiveCalls* calls_ = nullptr;
    std::string peer_;
  };

  ActiveCalls(size_t max_calls, size_t max_calls_per_peer)
      : max_calls_(max_calls), max_calls_per_peer_(max_calls_per_peer) {}

  // ResourceExhausted when this node, or this peer on it, is at its limit.
  absl::StatusOr<Admission> Admit(const std::string& peer);
  size_t count() const;

 private:
  void Leave(const std::string& peer);

  const size_t max_calls_;
  const size_t max_calls_per_peer_;
  mutable Mutex mutex_;
  size_t count_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  std::map<std::string, size_t> by_peer_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
