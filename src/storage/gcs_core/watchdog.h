#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <thread>
#include <utility>

#include <absl/time/time.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "storage/gcs_core/gcs_stub.h"

namespace peerchunk {

// Cancels calls from which nothing came in time. One thread for all calls of a provider. Owned by
// the context; thread-safe. Moving a call's deadline later takes no lock, so a stream can do it for
// every message.
class Watchdog {
  struct Entry;

 public:
  explicit Watchdog(Clock& clock);  // Borrowed.
  ~Watchdog();                      // After the last Watch.

  // One call under watch; nothing is expected of it until Expect. One thread at a time.
  class Watch {
   public:
    Watch(Watchdog& watchdog, std::shared_ptr<GcsCall> call);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    // The call is cancelled at `deadline` unless Expect or Rest comes first.
    void Expect(absl::Time deadline);
    void Rest();
    // The watchdog cancelled it.
    bool fired() const;

   private:
    Watchdog& watchdog_;
    std::shared_ptr<Entry> entry_;
  };

 private:
  // Both times as nanoseconds since the epoch. An entry is queued at `queued_for`, which may be
  // earlier than its deadline but not later: whoever changes one of them reads the other afterwards
  // (sequentially consistent), so at least one side sees that the entry has to move.
  struct Entry {
    std::shared_ptr<GcsCall> call;
    std::atomic<int64_t> deadline;
    std::atomic<int64_t> queued_for;  // Written under mutex_.
    std::atomic<bool> fired{false};
  };

  void Run();
  void Queue(const std::shared_ptr<Entry>& entry) PEERCHUNK_REQUIRES(mutex_);
  void Unqueue(const std::shared_ptr<Entry>& entry) PEERCHUNK_REQUIRES(mutex_);

  Clock& clock_;
  Mutex mutex_;
  CondVar changed_;
  std::set<std::pair<int64_t, std::shared_ptr<Entry>>> queue_ PEERCHUNK_GUARDED_BY(mutex_);
  bool stopping_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // Last: starts when the rest is there.
};

}  // namespace peerchunk
