#pragma once

#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "daemon/options.h"
#include "peerchunk/node/node.h"

namespace peerchunk {

// A node with its servers: ChunkService (and health) for peers, SandboxService for this machine,
// and metrics where asked for. Owned by main. Thread-safe once started.
class Daemon {
 public:
  // Puts everything together and serves. An error says what is wrong and what to do, and leaves
  // nothing running. The ready file that a dead daemon left is gone as soon as the data folder is
  // this one's.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const DaemonOptions& options);
  // Stops serving. What was not durable stays on disk for the next start. Waits for calls under
  // way, of which some end only when a disk or a bucket answers.
  ~Daemon();

  // As bound: port 0 has become a real one.
  const std::vector<std::string>& addresses() const;
  // What a person should know after the start, one line each.
  std::vector<std::string> Greeting() const;

  // Tells a supervisor, by the ready file where one is asked for, that everything is served.
  absl::Status WriteReadyFile();
  void RemoveReadyFile();
  // Takes no new pauses and waits for those under way and for uploads. Peers and guests are served
  // meanwhile.
  void Drain(absl::Time deadline);
  // Ends every mount, for good: nobody would answer there any more.
  void Unmount();
  // One line for each build that is not durable now: which, why, and where it lies.
  std::vector<std::string> NotDurable() const;

 private:
  struct Impl;
  explicit Daemon(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace peerchunk
