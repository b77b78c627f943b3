#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <absl/status/status.h>

#include "peerchunk/base/executor.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/storage/gcs_storage.h"
#include "storage/gcs_core/attempt.h"
#include "storage/rate_limit.h"

namespace peerchunk {

// What GcsUploadLanes is inside: a thread per session for large writes, which hold the lane's one
// buffer on their stack, and a few places for small ones, so that a record of some bytes does not
// wait behind gigabytes. Shared by the providers of a process; thread-safe.
class UploadLanes final : public GcsUploadLanes {
 public:
  UploadLanes(size_t lanes, uint64_t bytes_per_second, Clock& clock);

  size_t lanes() const { return lanes_; }
  // Calls `work` on up to `runners` lanes at once, again and again, until it returns false on each;
  // between two calls a lane serves others who wait. Returns when no call is under way: all are
  // through, or the caller is done with it, which ends lanes that wait their turn but not a call.
  void Run(Priority priority, size_t runners, const CallLimits& limits,
           const std::function<bool()>& work);

  // Waits for a place for a small write; Cancelled or DeadlineExceeded when that comes first.
  absl::Status EnterSmall(const CallLimits& limits);
  void LeaveSmall();

  // Waits until `bytes` more may be sent.
  absl::Status Spend(uint64_t bytes, const CallLimits& limits) {
    return rate_.Spend(bytes, limits.deadline, limits.cancellation);
  }

 private:
  static constexpr size_t kSmallPlaces = 4;
  struct Job;

  void Post(const std::shared_ptr<Job>& job);

  Clock& clock_;
  const size_t lanes_;
  RateLimit rate_;
  Mutex mutex_;
  CondVar left_;
  size_t small_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  ThreadPool pool_;  // Last: its tasks use the rest.
};

}  // namespace peerchunk
