#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "bench/contender.h"
#include "bench/cores.h"
#include "peerchunk/base/file.h"

namespace peerchunk::bench {

// What a client is to do, as it travels to the client's process.
struct Order {
  enum class Kind { kBulk, kReads, kReadsUnderBulk, kManyClients };
  Kind kind = Kind::kBulk;
  size_t sample = 0;
  Destination to = Destination::kNowhere;  // kBulk
  int streams = 1;                         // kBulk
  int clients = 1;                         // kManyClients
  uint64_t bytes = 0;                      // Of one read.
  int depth = 1;
  double seconds = 0;
  uint64_t seed = 0;
};

// What came of it. CPU and memory are both sides'; memory is the most that was resident, without
// the memory that is the destination.
struct Outcome {
  double seconds = 0;
  ReadFigures reads;
  double client_cpu_seconds = 0;
  double server_cpu_seconds = 0;
  uint64_t client_bytes = 0;
  uint64_t server_bytes = 0;
};

// A contender's server and client, each a process of its own: so what they use can be told apart,
// and a contender's memory and threads do not touch another's. Used by one thread.
class RunningContender {
 public:
  // `samples` outlives it. Forks, so all are started before this process has threads.
  static absl::StatusOr<std::unique_ptr<RunningContender>> Start(const Contender& contender,
                                                                 const Samples& samples,
                                                                 const Cores& cores);
  ~RunningContender();

  const std::string& name() const { return name_; }
  absl::StatusOr<uint64_t> ServerBytes() const;  // Resident now.
  // Unimplemented: not something that this contender can do.
  absl::StatusOr<Outcome> Do(const Order& order);

 private:
  RunningContender() = default;

  std::string name_;
  std::unique_ptr<ServerProcess> server_;
  File client_;  // A socket to the client's process.
  pid_t client_pid_ = 0;
};

}  // namespace peerchunk::bench
