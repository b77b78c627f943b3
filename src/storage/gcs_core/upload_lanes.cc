#include "storage/gcs_core/upload_lanes.h"

#include <algorithm>
#include <functional>
#include <stop_token>

#include "peerchunk/base/status.h"

namespace peerchunk {

std::shared_ptr<GcsUploadLanes> GcsUploadLanes::Create(size_t lanes, uint64_t bytes_per_second,
                                                       Clock& clock) {
  return std::make_shared<UploadLanes>(lanes, bytes_per_second, clock);
}

UploadLanes::UploadLanes(size_t lanes, uint64_t bytes_per_second, Clock& clock)
    : clock_(clock),
      lanes_(std::max<size_t>(1, lanes)),
      rate_(bytes_per_second, clock),
      pool_("gcs-upload", lanes_) {}

// One call of Run. Runners that were still queued when it returned find it abandoned.
struct UploadLanes::Job {
  Priority priority;
  const std::function<bool()>* work;  // Valid until abandoned or no runner is left.
  Mutex mutex;
  CondVar changed;
  size_t runners PEERCHUNK_GUARDED_BY(mutex) = 0;
  size_t working PEERCHUNK_GUARDED_BY(mutex) = 0;
  bool abandoned PEERCHUNK_GUARDED_BY(mutex) = false;
};

void UploadLanes::Post(const std::shared_ptr<Job>& job) {
  pool_.Run(job->priority, [this, job] {
    {
      const MutexLock lock(job->mutex);
      if (job->abandoned) return;
      ++job->working;
    }
    const bool more = (*job->work)();
    {
      const MutexLock lock(job->mutex);
      --job->working;
      if (!more) --job->runners;
      job->changed.NotifyAll();
      if (!more) return;
    }
    Post(job);
  });
}

void UploadLanes::Run(Priority priority, size_t runners, const CallLimits& limits,
                      const std::function<bool()>& work) {
  const auto job = std::make_shared<Job>();
  job->priority = priority;
  job->work = &work;
  {
    const MutexLock lock(job->mutex);
    job->runners = runners;
  }
  for (size_t i = 0; i < runners; ++i) Post(job);
  const std::stop_callback wake(limits.cancellation, [job] {
    const MutexLock lock(job->mutex);
    job->changed.NotifyAll();
  });
  MutexLock lock(job->mutex);
  while (job->runners > 0) {
    const bool over = !limits.Check(clock_).ok();
    if (over && job->working == 0) {
      job->abandoned = true;
      return;
    }
    clock_.WaitUntil(job->changed, job->mutex, over ? absl::InfiniteFuture() : limits.deadline);
  }
}

absl::Status UploadLanes::EnterSmall(const CallLimits& limits) {
  const std::stop_callback wake(limits.cancellation, [this] {
    const MutexLock lock(mutex_);
    left_.NotifyAll();
  });
  MutexLock lock(mutex_);
  while (small_ >= kSmallPlaces) {
    PEERCHUNK_RETURN_IF_ERROR(limits.Check(clock_));
    clock_.WaitUntil(left_, mutex_, limits.deadline);
  }
  ++small_;
  return absl::OkStatus();
}

void UploadLanes::LeaveSmall() {
  const MutexLock lock(mutex_);
  --small_;
  left_.NotifyAll();
}

}  // namespace peerchunk
