#include "daemon/call_scope.h"

#include <algorithm>
#include <chrono>

#include "peerchunk/base/clock.h"

namespace peerchunk {
namespace {

constexpr absl::Duration kAskEvery = absl::Milliseconds(50);

}  // namespace

CallScope::CallScope(grpc::ServerContext& context, absl::Duration longest) {
  // On our clock, which does not step when the system's does.
  const absl::Time now = Clock::Real().Now();
  deadline_ = now + longest;
  if (context.deadline() != std::chrono::system_clock::time_point::max()) {
    deadline_ = std::min(
        deadline_, now + absl::FromChrono(context.deadline() - std::chrono::system_clock::now()));
  }
  watcher_ = std::jthread([this, &context](const std::stop_token& over) {
    while (Clock::Real().SleepUntil(Clock::Real().Now() + kAskEvery, over)) {
      if (context.IsCancelled()) {
        cancelled_.request_stop();
        return;
      }
    }
  });
}

CallScope::~CallScope() = default;  // The watcher is told to stop, and joined.

ReadOptions CallScope::read_options() const {
  return {.deadline = deadline_, .cancellation = cancelled_.get_token()};
}

}  // namespace peerchunk
