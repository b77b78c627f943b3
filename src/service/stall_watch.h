#pragma once

#include <functional>

#include "peerchunk/base/clock.h"
#include "service/alarms.h"

namespace peerchunk {

// Notices when the message that a call is writing makes no way for too long: the reader does not
// read. Guarded by the mutex of its call. At most one alarm waits per call, whatever the number of
// messages.
class StallWatch {
 public:
  StallWatch(Alarms* alarms, Clock* clock, absl::Duration timeout)
      : alarms_(alarms), clock_(clock), timeout_(timeout) {}

  // A message is being written. `on_alarm` has to call Stalled, under the mutex.
  void Began(std::function<void()> on_alarm) {
    began_ = clock_->Now();
    writing_ = true;
    if (alarm_ == 0) alarm_ = alarms_->At(began_ + timeout_, std::move(on_alarm));
  }
  void Ended() { writing_ = false; }

  // True: it has been under way for the whole of the time. Else looks again when it would be.
  bool Stalled(std::function<void()> on_alarm) {
    alarm_ = 0;
    if (!writing_ || stopped_) return false;
    if (clock_->Now() >= began_ + timeout_) return true;
    alarm_ = alarms_->At(began_ + timeout_, std::move(on_alarm));
    return false;
  }

  // The call is over.
  void Stop() {
    stopped_ = true;
    if (alarm_ != 0) alarms_->Cancel(alarm_);
    alarm_ = 0;
  }

 private:
  Alarms* const alarms_;
  Clock* const clock_;
  const absl::Duration timeout_;
  absl::Time began_;
  Alarms::Id alarm_ = 0;
  bool writing_ = false;
  bool stopped_ = false;
};

}  // namespace peerchunk
