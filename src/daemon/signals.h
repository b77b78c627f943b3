#pragma once

#include <absl/status/statusor.h>

#include "peerchunk/base/file.h"

namespace peerchunk {

// SIGTERM and SIGINT as things to wait for instead of interruptions. Made before any thread is,
// since every thread has to inherit the blocked signals. SIGPIPE is ignored from then on.
class Signals {
 public:
  enum class Event { kSignal, kWoken };

  static absl::StatusOr<Signals> Block();

  // The next signal, or a call of Wake that no Wait has answered yet. One thread.
  Event Wait();
  // Any thread.
  void Wake();

 private:
  Signals(File signals, File wake) : signals_(std::move(signals)), wake_(std::move(wake)) {}

  File signals_;
  File wake_;
};

}  // namespace peerchunk
