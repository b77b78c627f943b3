#include "base/sleepers.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

namespace peerchunk {
namespace {

// An absolute time of CLOCK_MONOTONIC, which is what a wait with a mask takes.
timespec MonotonicTimeIn(absl::Duration rest) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::ToTimespec(absl::DurationFromTimespec(now) + std::min(rest, absl::Hours(1)));
}

}  // namespace

Sleepers::Mask Sleepers::One::NextMask() {
  static std::atomic<uint32_t> next = 0;
  return Mask{1} << (next.fetch_add(1, std::memory_order_relaxed) % 32);
}

Sleepers::Woken Sleepers::Sleep(One& one, absl::Time until, Clock& clock) {
  while (true) {
    // Who marks after this look changes it before the wake, and the kernel then does not wait.
    const uint32_t seen = wakes_.load(std::memory_order_acquire);
    if (one.woken_.load(std::memory_order_acquire) != Woken::kNot) break;
    timespec limit{};
    const timespec* timeout = nullptr;
    if (until != absl::InfiniteFuture()) {
      const absl::Duration rest = until - clock.Now();
      if (rest <= absl::ZeroDuration()) break;
      limit = MonotonicTimeIn(rest);
      timeout = &limit;
    }
    syscall(SYS_futex, &wakes_, FUTEX_WAIT_BITSET_PRIVATE, seen, timeout, nullptr, one.mask_);
  }
  return Take(one);
}

Sleepers::Woken Sleepers::Take(One& one) {
  return one.woken_.exchange(Woken::kNot, std::memory_order_acq_rel);
}

Sleepers::Mask Sleepers::Mark(One& one, Woken why) {
  Woken before = Woken::kNot;
  if (why == Woken::kReady) {
    one.woken_.store(why, std::memory_order_release);
  } else {
    one.woken_.compare_exchange_strong(before, why, std::memory_order_release,
                                       std::memory_order_relaxed);
  }
  return one.mask_;
}

void Sleepers::Wake(Mask mask) {
  if (mask == 0) return;
  wakes_.fetch_add(1, std::memory_order_acq_rel);
  syscall(SYS_futex, &wakes_, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, nullptr, nullptr, mask);
}

}  // namespace peerchunk
