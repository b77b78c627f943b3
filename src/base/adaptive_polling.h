#pragma once

#include <sched.h>

#include <algorithm>
#include <thread>
#include <utility>

#include <absl/functional/function_ref.h>
#include <absl/time/time.h>

#include "peerchunk/base/clock.h"

namespace peerchunk {

inline void OfferCore() { sched_yield(); }

// Whether to look again and again for what is waited for, or to fall asleep at once: falling asleep
// and being woken costs more than a wait that ends soon. One thread at a time.
class AdaptivePolling {
 public:
  class Wait;

  // On one core, or where their number is not known (0), who polls only keeps the others from it.
  explicit AdaptivePolling(unsigned cores = std::thread::hardware_concurrency())
      : one_core_(cores <= 1) {}

  // How much time to look for before falling asleep.
  absl::Duration Patience() const {
    return usual_ < kQuick && !one_core_ && rest_ == 0 ? kPatience : absl::ZeroDuration();
  }
  // A wait has ended, with or without an end to the looking.
  void Waited(absl::Duration waited) {
    usual_ += (std::min(waited, kMostCounted) - usual_) / 8;
    if (rest_ > 0) --rest_;
  }
  // It looked, and somebody who computes took the core, or nobody did. He takes it again when it is
  // offered again: from then on it is not, for more waits each time.
  void Looked(bool kept_away) {
    if (kept_away) rest_ = next_rest_;
    next_rest_ = kept_away ? std::min(2 * next_rest_, kLongestRest)
                           : std::max(next_rest_ / 2, kShortestRest);
  }

 private:
  static constexpr absl::Duration kPatience = absl::Microseconds(100);
  static constexpr absl::Duration kQuick = absl::Microseconds(200);
  // However long it was: a pause between two quick times is soon forgotten.
  static constexpr absl::Duration kMostCounted = absl::Milliseconds(2);
  // Others have the core for longer than one who waits for an answer of theirs should let them: who
  // sleeps has it back sooner.
  static constexpr absl::Duration kMostAway = absl::Microseconds(500);

  // A turn of one who computes is 3 ms or more; many readers together take less.
  static constexpr absl::Duration kTurn = absl::Milliseconds(2);
  // In waits. The longest: such a turn is then little for each of them.
  static constexpr int kShortestRest = 8;
  static constexpr int kLongestRest = 512;

  const bool one_core_;
  absl::Duration usual_;  // Moves an eighth of the way with each wait.
  int rest_ = 0;          // So many more waits without looking.
  int next_rest_ = kShortestRest;
};

// One wait:
//
//   AdaptivePolling::Wait wait(polling, clock);
//   while (!found && wait.LooksAgain()) found = Look();
//   if (!found) Sleep();
//
// Between two looks whoever wants the core has it. That time is not of the wait's: those who have
// it may be the ones who are waited for, and all of them would fall asleep on one core, one after
// the other, with the next core idle.
class AdaptivePolling::Wait {
 public:
  explicit Wait(AdaptivePolling& polling, Clock& clock, absl::Time until = absl::InfiniteFuture(),
                absl::FunctionRef<void()> offer_core = OfferCore)
      : polling_(polling),
        clock_(clock),
        offer_core_(offer_core),
        begun_(clock.Now()),
        until_(until),
        patience_(polling.Patience()),
        look_begun_(begun_) {}
  ~Wait() {
    polling_.Waited(clock_.Now() - begun_ - away_);
    if (looked_) polling_.Looked(kept_away_);
  }
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;

  bool LooksAgain() {
    if (std::exchange(first_, false)) {
      return looked_ = patience_ > absl::ZeroDuration() && begun_ < until_;
    }
    const absl::Time looked = clock_.Now();
    patience_ -= looked - look_begun_;
    if (patience_ <= absl::ZeroDuration() || looked >= until_) return false;
    offer_core_();
    look_begun_ = clock_.Now();
    const absl::Duration away = look_begun_ - looked;
    kept_away_ = kept_away_ || away > kTurn;
    if (away_ + away <= kMostAway) {
      away_ += away;
    } else {
      patience_ = absl::ZeroDuration();  // One more look.
    }
    return true;
  }

 private:
  AdaptivePolling& polling_;
  Clock& clock_;
  const absl::FunctionRef<void()> offer_core_;
  const absl::Time begun_;
  const absl::Time until_;
  absl::Duration patience_;
  absl::Time look_begun_;
  absl::Duration away_;
  bool first_ = true;
  bool looked_ = false;
  bool kept_away_ = false;
};

}  // namespace peerchunk
