#include "upload/leftover_sweep.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "base/logging.h"
#include "peerchunk/base/file_kind.h"

namespace peerchunk {
namespace {

// Longer than an attempt to clean up takes while the base is out of reach.
constexpr absl::Duration kAgainAfter = absl::Minutes(5);

}  // namespace

LeftoverSweep::LeftoverSweep(BuildRegistry* registry, StorageProvider* base, Clock* clock)
    : registry_(registry), base_(base), clock_(clock), due_(clock->Now()) {
  thread_ = std::thread([this] { Work(); });
}

void LeftoverSweep::Stop() {
  stop_.request_stop();
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void LeftoverSweep::Request() {
  const absl::Time now = clock_->Now();
  const MutexLock lock(mutex_);
  due_ = std::min(due_, now);
  changed_.NotifyAll();
}

void LeftoverSweep::Work() {
  WriteOptions options;
  options.cancellation = stop_.get_token();
  MutexLock lock(mutex_);
  while (!stopping_) {
    if (due_ == absl::InfiniteFuture()) {
      changed_.Wait(mutex_);
      continue;
    }
    if (clock_->Now() < due_) {
      clock_->WaitUntil(changed_, mutex_, due_);
      continue;
    }
    due_ = absl::InfiniteFuture();
    lock.Unlock();
    const absl::StatusOr<uint64_t> discarded = base_->DiscardUnfinishedWrites(
        [this](std::string_view path) { return GoesOn(path); }, options);
    if (discarded.ok() && *discarded > 0) {
      Logger("upload").info("event=leftovers_discarded uploads={}", *discarded);
    } else if (!discarded.ok() && !stop_.stop_requested()) {
      Logger("upload").warn("event=leftovers_stay error=\"{}\"", discarded.status().ToString());
    }
    const absl::Time again = discarded.ok() ? absl::InfiniteFuture() : clock_->Now() + kAgainAfter;
    lock.Lock();
    due_ = std::min(due_, again);
  }
}

bool LeftoverSweep::GoesOn(std::string_view path) const {
  const std::optional<BuildFileId> file = BuildFileId::FromObjectPath(path);
  if (!file) return true;  // Not of an uploader's.
  const std::shared_ptr<const RecordedBuild> build = registry_->Find(file->build);
  if (build == nullptr) return false;
  const auto recorded = build->files.find(file->kind);
  return recorded != build->files.end() && !recorded->second.in_base;
}

}  // namespace peerchunk
