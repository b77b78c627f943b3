#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <absl/status/statusor.h>

namespace peerchunk::bench {

// The file that every contender serves: made once, in the page cache.
struct Sample {
  std::string folder;
  std::string path;  // <folder>/memfile
  uint64_t size = 0;
  int zero_percent = 0;  // Of its 1 MiB blocks.
};

// One way to move the sample from a server process to this one. Used by one thread; the server runs
// in a child process, ended when this goes.
class Contender {
 public:
  virtual ~Contender() = default;
  virtual std::string name() const = 0;
  // Called once, after the last server was forked: gRPC in this process would reach into the
  // children.
  virtual absl::Status Connect() { return absl::OkStatus(); }
  // Reads the whole sample once and drops the bytes, after whatever check this way has.
  virtual absl::Status ReadAll() = 0;
  // Reads `count` pages at the offsets that `next` gives, `depth` at a time. Unimplemented: this
  // way has no such reads.
  virtual absl::Status ReadPages(uint64_t count, int depth, const std::function<uint64_t()>& next);
};

// A forked server: `serve` runs in the child, tells its port through `ready` and then blocks for
// ever. All are forked before this process uses gRPC.
class ServerProcess {
 public:
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(
      const std::function<void(const std::function<void(int port)>& ready)>& serve);
  ~ServerProcess();
  int port() const { return port_; }

 private:
  ServerProcess(pid_t pid, int port) : pid_(pid), port_(port) {}
  pid_t pid_;
  int port_;
};

absl::StatusOr<std::unique_ptr<Contender>> StartOurs(const Sample& sample);
absl::StatusOr<std::unique_ptr<Contender>> StartNaive(const Sample& sample);
absl::StatusOr<std::unique_ptr<Contender>> StartRawTcp(const Sample& sample);
// Unavailable when nginx or curl is not installed.
absl::StatusOr<std::unique_ptr<Contender>> StartNginx(const Sample& sample);

}  // namespace peerchunk::bench
