#include "peerchunk/upload/uploader.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include "base/logging.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/status.h"
#include "upload/build_upload.h"
#include "upload/leftover_sweep.h"

namespace peerchunk {
namespace {

std::string_view View(absl::string_view text) { return {text.data(), text.size()}; }

// Where nobody else is there to ask: metadata.json is written last.
BuildUpload::AncestorIsDurable AskBase(StorageProvider* base) {
  return [base](const BuildId& id, const std::stop_token& stop) -> absl::StatusOr<bool> {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Blob> metadata,
                               base->OpenBlob(BuildFileId{id, FileKind::kMetadata}.ObjectPath()));
    ReadOptions options;
    options.cancellation = stop;
    return metadata->Exists(options);
  };
}

}  // namespace

class Uploader::Impl {
 public:
  Impl(BuildRegistry* registry, StorageProvider* base, Options options);
  ~Impl() { Shutdown(); }

  void StartThreads();
  void Shutdown();
  void Enqueue(const BuildId& id);
  void Stop(const BuildId& id);
  void LetGo(const BuildId& id);
  std::vector<BuildId> WaitIdle(absl::Time deadline);

 private:
  struct Job {
    absl::Time due;
    uint64_t failures = 0;  // One after the other, waits included.
    bool running = false;
    bool again = false;     // Enqueued while it ran.
    std::stop_source stop;  // Of the attempt under way.
  };

  void Work();
  void Handle(const BuildId& id, const AttemptResult& result);
  void Retry(const BuildId& id, const absl::Status& why);
  void Reschedule(const BuildId& id, const AttemptResult& result, uint64_t durable_before)
      PEERCHUNK_REQUIRES(mutex_);
  absl::Duration Backoff(uint64_t failures) PEERCHUNK_REQUIRES(mutex_);
  void Count(const char* outcome);

  BuildRegistry* const registry_;
  StorageProvider* const base_;
  const Options options_;
  std::stop_source stop_;  // Of all uploads, to be gone on with by the next process.
  BuildUpload upload_;

  Mutex mutex_;
  CondVar changed_;  // Jobs, or stopping.
  std::map<BuildId, Job> jobs_ PEERCHUNK_GUARDED_BY(mutex_);
  std::map<BuildId, int> held_ PEERCHUNK_GUARDED_BY(mutex_);  // By how many.
  uint64_t became_durable_ PEERCHUNK_GUARDED_BY(mutex_) = 0;  // How many.
  std::mt19937_64 random_ PEERCHUNK_GUARDED_BY(mutex_);
  bool stopping_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // Of whoever starts and destroys this, as is the next one.
  std::optional<LeftoverSweep> leftovers_;
};

Uploader::Impl::Impl(BuildRegistry* registry, StorageProvider* base, Options options)
    : registry_(registry),
      base_(base),
      options_(std::move(options)),
      upload_(registry,
              ObjectUpload(
                  registry, base,
                  [this](FileKind kind, uint64_t bytes) {
                    if (options_.metrics == nullptr) return;
                    options_.metrics
                        ->counter("peerchunk_uploaded_bytes_total",
                                  {{"file", std::string(FileName(kind))}})
                        .Add(bytes);
                  },
                  stop_.get_token()),
              options_.ancestor_is_durable ? options_.ancestor_is_durable : AskBase(base)),
      random_(options_.seed) {}

void Uploader::Impl::Shutdown() {
  stop_.request_stop();
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    for (auto& [id, job] : jobs_) job.stop.request_stop();
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  if (leftovers_) leftovers_->Stop();
}

void Uploader::Impl::StartThreads() {
  leftovers_.emplace(registry_, base_, options_.clock);
  for (size_t i = 0; i < options_.parallel_builds; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

void Uploader::Impl::Enqueue(const BuildId& id) {
  const MutexLock lock(mutex_);
  const auto [job, added] = jobs_.try_emplace(id);
  if (added) {
    job->second.due = options_.clock->Now();
  } else if (job->second.running) {
    job->second.again = true;
  }
  changed_.NotifyAll();
}

void Uploader::Impl::Stop(const BuildId& id) {
  const MutexLock lock(mutex_);
  ++held_[id];
  while (true) {
    const auto job = jobs_.find(id);
    if (job == jobs_.end() || !job->second.running) return;
    job->second.stop.request_stop();
    changed_.Wait(mutex_);
  }
}

void Uploader::Impl::LetGo(const BuildId& id) {
  const MutexLock lock(mutex_);
  const auto held = held_.find(id);
  if (--held->second == 0) held_.erase(held);
  // Under the lock: a build that is recorded again only after this look is queued after it too.
  if (registry_->Find(id) == nullptr) {
    jobs_.erase(id);
    leftovers_->Request();
  }
  if (const auto job = jobs_.find(id); job != jobs_.end()) job->second = Job{options_.clock->Now()};
  changed_.NotifyAll();
}

std::vector<BuildId> Uploader::Impl::WaitIdle(absl::Time deadline) {
  {
    const MutexLock lock(mutex_);
    while (!stopping_ && !jobs_.empty() && options_.clock->Now() < deadline) {
      options_.clock->WaitUntil(changed_, mutex_, deadline);
    }
  }
  std::vector<BuildId> not_durable;
  for (const std::shared_ptr<const RecordedBuild>& build : registry_->List()) {
    if (!HeldByBase(*build)) not_durable.push_back(build->id);
  }
  return not_durable;
}

void Uploader::Impl::Work() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    auto next = jobs_.end();
    for (auto job = jobs_.begin(); job != jobs_.end(); ++job) {
      if (job->second.running || held_.contains(job->first)) continue;
      if (next == jobs_.end() || job->second.due < next->second.due) next = job;
    }
    if (next == jobs_.end()) {
      changed_.Wait(mutex_);
      continue;
    }
    if (options_.clock->Now() < next->second.due) {
      options_.clock->WaitUntil(changed_, mutex_, next->second.due);
      continue;
    }
    const BuildId id = next->first;
    next->second.running = true;
    next->second.again = false;
    const uint64_t durable_before = became_durable_;
    const std::stop_token stop = next->second.stop.get_token();
    lock.Unlock();
    const AttemptResult result = upload_.Attempt(id, stop);
    // An attempt that was stopped has failed at nothing; what it has brought there stays.
    const bool confirmed = result.kind == AttemptResult::Kind::kDurable ||
                           result.kind == AttemptResult::Kind::kMetadata;
    if (confirmed || !stop.stop_requested()) Handle(id, result);
    if (result.kind != AttemptResult::Kind::kRetry) leftovers_->Request();
    lock.Lock();
    Reschedule(id, result, durable_before);
    changed_.NotifyAll();
  }
}

// Records and tells how an attempt ended; without the lock.
void Uploader::Impl::Handle(const BuildId& id, const AttemptResult& result) {
  switch (result.kind) {
    case AttemptResult::Kind::kDone:
      return;
    case AttemptResult::Kind::kDurable:
      Count("durable");
      Logger("upload").info("event=durable build={}", id.ToString());
      if (options_.on_durable) options_.on_durable(id);
      if (options_.on_confirmed) options_.on_confirmed(id);
      return;
    case AttemptResult::Kind::kMetadata:
      Count("metadata");
      if (options_.on_confirmed) options_.on_confirmed(id);
      return;
    case AttemptResult::Kind::kWaiting:
      registry_->NoteWaiting(id, View(result.why.message()));
      return;
    case AttemptResult::Kind::kRetry:
      Retry(id, result.why);
      return;
    case AttemptResult::Kind::kGiveUp:
      Count("failed");
      Logger("upload").error("event=upload_failed build={} error=\"{}\"", id.ToString(),
                             View(result.why.message()));
      // A durable build does not fail: only its new metadata could not be written.
      if (!registry_->MarkFailed(id, std::string(result.why.message())).ok()) {
        registry_->RecordAttempt(id, result.why).IgnoreError();
      }
      return;
  }
}

void Uploader::Impl::Retry(const BuildId& id, const absl::Status& why) {
  Count("retry");
  Logger("upload").warn("event=upload_attempt_failed build={} error=\"{}\"", id.ToString(),
                        View(why.message()));
  const absl::Status recorded = registry_->RecordAttempt(id, why);
  if (!recorded.ok()) {
    Logger("upload").error("event=record_failed build={} error=\"{}\"", id.ToString(),
                           View(recorded.message()));
  }
  const std::shared_ptr<const RecordedBuild> build = registry_->Find(id);
  if (build == nullptr || options_.max_attempts == 0 ||
      build->upload_attempts < options_.max_attempts) {
    return;
  }
  Count("failed");
  registry_
      ->MarkFailed(id, absl::StrCat("gave up after ", build->upload_attempts,
                                    " attempts, the last: ", why.message()))
      .IgnoreError();  // A durable build, whose metadata is tried again after the next start.
}

void Uploader::Impl::Reschedule(const BuildId& id, const AttemptResult& result,
                                uint64_t durable_before) {
  const auto found = jobs_.find(id);
  Job& job = found->second;
  job.running = false;
  if (held_.contains(id)) return;  // Whoever lets go sees to it.
  const absl::Time now = options_.clock->Now();
  if (result.kind == AttemptResult::Kind::kDurable) {
    ++became_durable_;
    for (auto& [other, waiting] : jobs_) {  // Some may have waited for this one.
      if (!waiting.running) waiting.due = now;
    }
  }
  const bool waits = result.kind == AttemptResult::Kind::kWaiting;
  if (waits || result.kind == AttemptResult::Kind::kRetry) {
    job.due = now + Backoff(job.failures++);
    if (waits && became_durable_ != durable_before) job.due = now;
    return;
  }
  // What became durable may have new metadata by now.
  if (job.again || result.kind == AttemptResult::Kind::kDurable) {
    job = Job{now};
  } else {
    jobs_.erase(found);
  }
}

// Full jitter: anything from nothing to a limit that doubles.
absl::Duration Uploader::Impl::Backoff(uint64_t failures) {
  const double doublings = static_cast<double>(std::min<uint64_t>(failures, 30));
  const absl::Duration limit =
      std::min(options_.max_backoff, options_.first_backoff * std::exp2(doublings));
  return limit * std::uniform_real_distribution<double>(0, 1)(random_);
}

void Uploader::Impl::Count(const char* outcome) {
  if (options_.metrics == nullptr) return;
  options_.metrics->counter("peerchunk_upload_attempts_total", {{"outcome", outcome}}).Add();
}

Uploader::Uploader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Uploader::~Uploader() = default;

absl::StatusOr<std::unique_ptr<Uploader>> Uploader::Start(BuildRegistry* registry,
                                                          StorageProvider* base, Options options) {
  if (registry == nullptr || base == nullptr || options.parallel_builds == 0 ||
      options.first_backoff <= absl::ZeroDuration() ||
      options.max_backoff < options.first_backoff) {
    return absl::InvalidArgumentError(
        "uploader: a registry, a base, at least one parallel build and a positive backoff are "
        "required");
  }
  auto impl = std::make_unique<Impl>(registry, base, std::move(options));
  for (const std::shared_ptr<const RecordedBuild>& build : registry->List()) {
    if (!HeldByBase(*build) && build->status.state != BuildState::kFailed) {
      impl->Enqueue(build->id);
    }
  }
  impl->StartThreads();
  return std::unique_ptr<Uploader>(new Uploader(std::move(impl)));
}

void Uploader::Shutdown() { impl_->Shutdown(); }

void Uploader::Enqueue(const BuildId& id) { impl_->Enqueue(id); }

Uploader::Hold Uploader::Stop(const BuildId& id) {
  impl_->Stop(id);
  return {impl_.get(), id};
}

Uploader::Hold::~Hold() {
  if (impl_ != nullptr) impl_->LetGo(id_);
}

std::vector<BuildId> Uploader::WaitIdle(absl::Time deadline) { return impl_->WaitIdle(deadline); }

}  // namespace peerchunk
