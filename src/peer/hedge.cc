#include "peer/hedge.h"

#include <algorithm>
#include <utility>

namespace peerchunk {

std::shared_ptr<Hedge> Hedge::Start(std::shared_ptr<const SourceSet> sources, Plan plan,
                                    std::function<void()> on_won) {
  const Priority priority = plan.options.priority;
  Executor& executor = *sources->directory->options.executor;
  std::shared_ptr<Hedge> hedge(new Hedge(std::move(sources), std::move(plan), std::move(on_won)));
  hedge->plan_.options.cancellation = hedge->stop_.get_token();
  executor.Run(priority, [hedge] { hedge->Run(); });
  return hedge;
}

void Hedge::Run() {
  const ReadCounters& counters = sources_->counters();
  {
    const MutexLock lock(mutex_);
    if (state_ != State::kQueued) return;
    state_ = State::kRunning;
    sources_->directory->HedgeBegins();
  }
  counters.hedges_sent.Add();
  Result result = Read();
  const bool good = result.admission.outcome == BaseOutcome::kUntried;
  bool in_time = false;
  {
    const MutexLock lock(mutex_);
    in_time = state_ == State::kRunning;
    if (in_time) {
      result_ = std::move(result);
      state_ = good ? State::kWon : State::kFailed;
    }
  }
  changed_.NotifyAll();
  if (!in_time) {
    CountWasted(result.bytes.size());
  } else if (good) {
    counters.hedges_won.Add();
    on_won_();
  } else {
    counters.hedges_failed.Add();
  }
  sources_->directory->HedgeEnds();
}

void Hedge::CountWasted(uint64_t bytes) const {
  sources_->knowledge->bytes(plan_.kind).wasted.fetch_add(bytes, std::memory_order_relaxed);
  sources_->counters().wasted_hedge_lost.Add(bytes);
}

Hedge::Result Hedge::Read() {
  Result result;
  result.admission = AdmitBase(*sources_, plan_.kind, plan_.trust, plan_.want_stat, plan_.options);
  if (result.admission.outcome != BaseOutcome::kUntried || plan_.most_bytes == 0) return result;
  const auto fail = [&result](absl::Status cause) {
    result.admission.outcome = OutcomeOf(cause);
    result.admission.cause = std::move(cause);
    result.bytes.clear();
  };
  auto object = OpenInBase(*sources_, plan_.kind);
  if (!object.ok()) {
    fail(object.status());
    return result;
  }
  ReadOptions options = plan_.options;
  if (result.admission.stat && plan_.want_stat) options.version = result.admission.stat->version;
  result.bytes.resize(std::min(plan_.most_bytes, kWindowBytes));
  const auto read = (*object)->ReadAt(plan_.offset, absl::MakeSpan(result.bytes), options);
  if (!read.ok()) {
    fail(read.status());
    return result;
  }
  result.bytes.resize(*read);
  return result;
}

bool Hedge::GiveUp() {
  const bool sent = state_ == State::kRunning;
  state_ = State::kAbandoned;
  if (!sent) sources_->directory->tokens.GiveBack();
  return sent;
}

bool Hedge::YieldToPeer() {
  {
    const MutexLock lock(mutex_);
    if (state_ == State::kWon) return false;
    if (state_ == State::kFailed || state_ == State::kAbandoned) return true;
    if (!GiveUp()) return true;
  }
  sources_->counters().hedges_lost.Add();
  stop_.request_stop();
  return true;
}

bool Hedge::StealIfQueued() {
  const MutexLock lock(mutex_);
  if (state_ != State::kQueued) return false;
  GiveUp();
  return true;
}

bool Hedge::failed() const {
  const MutexLock lock(mutex_);
  return state_ == State::kFailed || state_ == State::kAbandoned;
}

const Hedge::Result* Hedge::Wait(absl::Time deadline, const std::stop_token& cancellation) {
  // Destroyed after the lock is released: its destructor waits for a callback under way.
  const std::stop_callback wake(cancellation, [this] {
    const MutexLock lock(mutex_);
    changed_.NotifyAll();
  });
  const MutexLock lock(mutex_);
  Clock& clock = sources_->clock();
  while (state_ == State::kQueued || state_ == State::kRunning) {
    if (cancellation.stop_requested() || clock.Now() >= deadline) return nullptr;
    clock.WaitUntil(changed_, mutex_, deadline);
  }
  if (state_ == State::kAbandoned) return nullptr;
  taken_ = true;
  return &result_;
}

void Hedge::Abandon() {
  {
    const MutexLock lock(mutex_);
    if (state_ == State::kWon && !std::exchange(taken_, true)) CountWasted(result_.bytes.size());
    if (state_ != State::kQueued && state_ != State::kRunning) return;
    if (!GiveUp()) return;
  }
  sources_->counters().hedges_dropped.Add();
  stop_.request_stop();
}

}  // namespace peerchunk
