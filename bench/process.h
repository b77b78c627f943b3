#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

namespace peerchunk::bench {

// A forked server: `serve` runs in the child, tells its port through `ready` and blocks for ever;
// killed when this goes. This process never uses gRPC itself: it would not survive the next fork.
class ServerProcess {
 public:
  using Ready = std::function<void(int port)>;
  // `serve` returns only when it failed, and why.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(
      const std::function<absl::Status(const Ready&)>& serve);
  // The same for a program that listens on `port`: starts it and waits until it answers there.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> StartProgram(
      const std::vector<std::string>& command, int port);
  ~ServerProcess();

  pid_t pid() const { return pid_; }
  int port() const { return port_; }

 private:
  ServerProcess(pid_t pid, int port) : pid_(pid), port_(port) {}
  pid_t pid_;
  int port_;
};

// Forks and runs `child`, which does not return, in a process that ends with this one.
absl::StatusOr<pid_t> Fork(const std::function<void()>& child);

// A port of loopback that nobody listens on, for programs that cannot tell which one they got.
absl::StatusOr<int> FreePort();
absl::StatusOr<int> ConnectTo(int port);  // A connected socket with TCP_NODELAY.

struct ProgramRun {
  std::string output;
  uint64_t peak_bytes = 0;  // Resident.
};
// Runs a program to its end; Internal when it fails.
absl::StatusOr<ProgramRun> RunProgram(const std::vector<std::string>& command);
// True when there is such a program in PATH or where Debian puts servers.
bool HasProgram(const std::string& name);

}  // namespace peerchunk::bench
