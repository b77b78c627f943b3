#pragma once

#include <functional>
#include <utility>

#include <absl/time/time.h>

#include "peerchunk/base/executor.h"
#include "service/alarms.h"
#include "service/byte_budget.h"

namespace peerchunk {

// A request's place in the line for memory, and the time at which it gives that up. Guarded by the
// mutex of its call. Once the memory has come, or the request has left, nothing is kept of it: its
// time may be weeks away.
class MemoryWait {
 public:
  explicit MemoryWait(Alarms* alarms) : alarms_(alarms) {}  // Borrowed.

  // Joins the line. `then` as for Account::Acquire: it, or what it starts, has to call Ended.
  // `on_late` runs at `until` (never, when that is infinite) and has to call LeaveIf.
  void Begin(ByteBudget::Account& account, Priority lane, uint64_t bytes,
             std::function<void(ByteBudget::Lease)> then, absl::Time until,
             std::function<void(ByteBudget::Ticket)> on_late) {
    account_ = &account;
    lane_ = lane;
    ticket_ = account.Acquire(lane, bytes, std::move(then));
    if (until == absl::InfiniteFuture()) return;
    alarm_ =
        alarms_->At(until, [on_late = std::move(on_late), ticket = ticket_] { on_late(ticket); });
  }

  // The memory has come.
  void Ended() {
    ticket_ = 0;
    if (alarm_ != 0) alarms_->Cancel(std::exchange(alarm_, 0));
  }
  // True: it waited, and its `then` never runs.
  bool Leave() {
    if (ticket_ == 0 || !account_->Forget(lane_, ticket_)) return false;
    Ended();
    return true;
  }
  // The same, unless it is another wait by now.
  bool LeaveIf(ByteBudget::Ticket ticket) { return ticket == ticket_ && Leave(); }

 private:
  Alarms* const alarms_;
  ByteBudget::Account* account_ = nullptr;  // The call's.
  Priority lane_ = Priority::kDemand;
  ByteBudget::Ticket ticket_ = 0;  // 0: it does not wait.
  Alarms::Id alarm_ = 0;
};

}  // namespace peerchunk
