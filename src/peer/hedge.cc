#include "peer/hedge.h"

#include <algorithm>
#include <utility>

namespace peerchunk {

std::shared_ptr<Hedge> Hedge::Start(std::shared_ptr<const SourceSet> sources, Plan plan,
                                    std::function<void()> on_won) {
  const Priority priority = plan.options.priority;
  Executor& executor = *sources->directory->options.executor;
  sources->counters().hedges_sent.Add();
  std::shared_ptr<Hedge> hedge(new Hedge(std::move(sources), std::move(plan), std::move(on_won)));
  hedge->plan_.options.cancellation = hedge->stop_.get_token();
  executor.Run(priority, [hedge] { hedge->Run(); });
  return hedge;
}

void Hedge::Run() {
  {
    const MutexLock lock(mutex_);
    if (state_ != State::kQueued) return;
    state_ = State::kRunning;
    sources_->directory->HedgeBegins();
  }
  Result result = Read();
  const bool good = result.admission.outcome == BaseOutcome::kUntried;
  bool won = false;
  {
    const MutexLock lock(mutex_);
    if (state_ == State::kRunning) {
      result_ = std::move(result);
      state_ = good ? State::kWon : State::kFailed;
      won = good;
    } else {
      sources_->knowledge->bytes(plan_.kind)
          .wasted.fetch_add(result.bytes.size(), std::memory_order_relaxed);
      sources_->counters().wasted_hedge_lost.Add(result.bytes.size());
    }
  }
  changed_.NotifyAll();
  if (won) {
    sources_->counters().hedges_won.Add();
    on_won_();
  } else if (!good) {
    sources_->counters().hedges_failed.Add();
  }
  sources_->directory->HedgeEnds();
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

bool Hedge::YieldToPeer() {
  {
    const MutexLock lock(mutex_);
    if (state_ == State::kWon) return false;
    if (state_ == State::kFailed || state_ == State::kAbandoned) return true;
    state_ = State::kAbandoned;
  }
  sources_->counters().hedges_lost.Add();
  stop_.request_stop();
  return true;
}

bool Hedge::StealIfQueued() {
  const MutexLock lock(mutex_);
  if (state_ != State::kQueued) return false;
  state_ = State::kAbandoned;
  return true;
}

bool Hedge::won() const {
  const MutexLock lock(mutex_);
  return state_ == State::kWon;
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
  return state_ == State::kAbandoned ? nullptr : &result_;
}

void Hedge::Abandon() {
  {
    const MutexLock lock(mutex_);
    if (state_ != State::kQueued && state_ != State::kRunning) return;
    state_ = State::kAbandoned;
  }
  stop_.request_stop();
}

}  // namespace peerchunk
