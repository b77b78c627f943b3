#pragma once

#include <memory>
#include <stop_token>
#include <thread>

#include <absl/status/statusor.h>

#include "peerchunk/base/file.h"

namespace peerchunk::cli {

// SIGINT and SIGTERM as a request to stop, so that what is under way cleans up after itself. A
// second signal ends the process at once. Made by main before any other thread.
class Interrupt {
 public:
  static absl::StatusOr<std::unique_ptr<Interrupt>> Install();
  ~Interrupt();

  std::stop_token token() const { return requested_.get_token(); }

 private:
  Interrupt(File signals, File over) : signals_(std::move(signals)), over_(std::move(over)) {}
  void Watch();

  File signals_;
  File over_;
  std::stop_source requested_;
  std::thread watcher_;
};

}  // namespace peerchunk::cli
