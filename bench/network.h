#pragma once

#include <string>

#include <absl/status/statusor.h>

namespace peerchunk::bench {

// The ground that all contenders share.
struct Network {
  std::string congestion_control;  // In force for every one of them.
  bool own = false;                // A namespace that nobody else is in.
  std::string note;                // Why it is the host's, or not the setting that was asked for.
};

// Moves this process, and with it every child started later, into a network namespace of its own
// with loopback up and TCP under `congestion_control`. All contenders then run under one setting,
// and under one that suits: BBR, the default of some hosts, paces loopback down to 1.8 GiB/s for
// everybody, raw TCP included, which hides every difference. Where that is not permitted, what is
// in force is said in the note. Called before any thread exists.
absl::StatusOr<Network> EnterOwnNetwork(const std::string& congestion_control);

}  // namespace peerchunk::bench
