#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "base/token_bucket.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"
#include "service/alarms.h"

namespace peerchunk {

// Keeps what is sent to all peers within a rate. Who wants to send takes a turn, which pays for so
// many bytes, and may send these as it likes; the next turn comes when they are paid for. Demand
// pays for demand only, prefetch for everything: so demand never waits for prefetch. In a lane
// peers take turns, and those who wait for one peer are served in order. No thread waits. In any
// time T at most rate * T goes out, and beyond it kDemandBurstBytes and a turn of each lane.
//
// Owned by the service, next to the alarms, which are gone before it. Thread-safe.
class SendPacer {
 public:
  // So much demand may be sent unpaid: a reader of pages meets no timer unless it reads faster.
  static constexpr uint64_t kDemandBurstBytes = 512 * kKiB;
  // A turn that waits; 0 is none.
  using Ticket = uint64_t;

  // `bytes_per_second` 0: no limit. The others are borrowed; neither is used before the first wait.
  SendPacer(uint64_t bytes_per_second, Clock* clock, Alarms* alarms,
            Counter& throttled_microseconds);

  // True: nobody in `lane` waits and nothing is owed; the bytes are spent.
  bool TrySpend(Priority lane, uint64_t bytes);

  // Runs `then` when it is `peer`'s turn and the bytes are spent: on this thread, or on that of the
  // alarms, or of whoever gives bytes back. It must neither block nor take a lock of a call.
  Ticket Wait(const std::string& peer, Priority lane, uint64_t bytes, std::function<void()> then);

  // Takes a turn out of the line; true: its `then` never runs.
  bool Forget(const std::string& peer, Priority lane, Ticket ticket);

  // For bytes that did not wait for a turn: they are sent, and others wait for them.
  void Spend(Priority lane, uint64_t bytes);

  // Bytes of a turn that were not sent after all: zeros, or the call is over.
  void GiveBack(Priority lane, uint64_t bytes);

  size_t waiting() const;

 private:
  struct Waiter {
    Ticket ticket;
    uint64_t bytes;
    absl::Time since;
    std::function<void()> then;
  };
  struct Lane {
    std::deque<std::string> turns;  // The peers that wait, the next one first.
    std::map<std::string, std::deque<Waiter>> waiters;
  };
  struct Buckets {
    explicit Buckets(uint64_t bytes_per_second) : demand(bytes_per_second), all(bytes_per_second) {}
    TokenBucket demand;
    TokenBucket all;
  };

  static constexpr size_t Index(Priority lane) { return static_cast<size_t>(lane); }
  absl::Time DueLocked(Priority lane) const PEERCHUNK_REQUIRES(mutex_);
  void SpendLocked(Priority lane, uint64_t bytes, absl::Time now) PEERCHUNK_REQUIRES(mutex_);
  void SetAlarmLocked() PEERCHUNK_REQUIRES(mutex_);
  void GrantWaiting();

  Clock* const clock_;
  Alarms* const alarms_;
  Counter& throttled_microseconds_;
  const bool unlimited_;
  mutable Mutex mutex_;
  Buckets buckets_ PEERCHUNK_GUARDED_BY(mutex_);
  std::array<Lane, 2> lanes_ PEERCHUNK_GUARDED_BY(mutex_);
  Ticket last_ticket_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  Alarms::Id alarm_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  absl::Time alarm_at_ PEERCHUNK_GUARDED_BY(mutex_) = absl::InfiniteFuture();
};

}  // namespace peerchunk
