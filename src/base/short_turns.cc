#include "base/short_turns.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace peerchunk {
namespace {

// sched_setattr(2); glibc has neither it nor the function before 2.41.
struct SchedulingAttributes {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime;  // Of SCHED_OTHER: the length of a turn, in nanoseconds; 100 us at least.
  uint64_t deadline;
  uint64_t period;
};

constexpr uint64_t kTurnNanoseconds = 100'000;

}  // namespace

void PreferShortTurns() {
  SchedulingAttributes attributes{};
  // What is not of this is left as it is. Where it fails, turns are as long as everybody's.
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) return;
  attributes.runtime = kTurnNanoseconds;
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace peerchunk
