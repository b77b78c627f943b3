#pragma once

#include <atomic>
#include <cstdint>

#include <absl/time/time.h>

#include "peerchunk/base/clock.h"

namespace peerchunk {

// Threads that sleep until they are woken, several of them by one system call (futex(2), whose
// waits and wakes have a mask). Woken one by one, each takes the core from whoever wakes it, who
// has to get it back to wake the next: two switches for each instead of one.
//
//   who wakes: Mask mask = 0; for (...) mask |= sleepers.Mark(one, Woken::kReady);
//              sleepers.Wake(mask);
//
// Thread-safe. Must outlive all sleeps in it.
class Sleepers {
 public:
  enum class Woken : uint8_t { kNot, kToLook, kReady };
  using Mask = uint32_t;

  // Sleeps in one thread at a time.
  class One {
   private:
    friend class Sleepers;
    static Mask NextMask();

    std::atomic<Woken> woken_ = Woken::kNot;
    // Whoever has the same is woken too, and falls asleep again.
    const Mask mask_ = NextMask();
  };

  // Until `one` is marked and woken, which may have been before, or for as long as it is to `until`
  // on `clock` now, in real time. Returns what Take does.
  Woken Sleep(One& one, absl::Time until, Clock& clock);
  // What `one` was marked as, which it then no longer is.
  Woken Take(One& one);
  // What is kReady stays so.
  Mask Mark(One& one, Woken why);
  // All that were marked, with the bits that Mark returned.
  void Wake(Mask mask);

 private:
  std::atomic<uint32_t> wakes_ = 0;
};

}  // namespace peerchunk
