#pragma once

#include <cstdint>

#include <absl/time/time.h>

#include "peerchunk/base/metrics.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/peer/peer_directory.h"

namespace peerchunk {

// The circuit breaker of one peer, shared by all readers of the process. Opens after a number of
// failures in a row; after a while lets one read through, the probe, and closes only when good
// bytes of a real read arrived. It orders sources and never forbids: a peer may be asked while it
// is open. Thread-safe.
class Breaker {
 public:
  struct Transitions {
    Counter* open = nullptr;
    Counter* half_open = nullptr;
    Counter* closed = nullptr;
  };
  Breaker(const PeerBudgets& budgets, Transitions transitions)
      : budgets_(budgets), transitions_(transitions), open_for_(budgets.breaker_open) {}

  // True when the peer should be asked last now. A read that wants bytes is not held back when it
  // may be the probe.
  bool Demotes(absl::Time now, bool wants_bytes) const;

  // Before a call. True when the call is the probe: its end must be told, by OnBytes, OnFailure or
  // OnNoVerdict.
  bool Enter(absl::Time now, bool wants_bytes);
  void OnBytes();
  // Returns true when the breaker opened by this.
  bool OnFailure(absl::Time now, bool probe);
  // The call ended without showing anything about the peer.
  void OnNoVerdict(bool probe);

 private:
  bool MayProbe(absl::Time now) const PEERCHUNK_REQUIRES(mutex_) {
    return open_ && !probing_ && now >= open_until_;
  }

  const PeerBudgets& budgets_;
  const Transitions transitions_;
  mutable Mutex mutex_;
  uint32_t failures_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  bool open_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool probing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  absl::Time open_until_ PEERCHUNK_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Duration open_for_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
