#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "bench/process.h"
#include "bench/sample.h"
#include "bench/work.h"

namespace peerchunk::bench {

// The reading side of one way to move the samples, in a process of its own. Used by one thread.
// Unimplemented: this way has no such work.
class Client {
 public:
  virtual ~Client() = default;
  virtual absl::Status ReadAll(const BulkRead& work);
  virtual absl::StatusOr<ReadFigures> Read(const RandomReads& reads);
  // As Read, while another thread reads the same sample whole, again and again.
  virtual absl::StatusOr<ReadFigures> ReadUnderBulk(const RandomReads& reads);
  // `count` clients, each with connections of its own, read the whole sample to nowhere.
  virtual absl::Status ReadAllByMany(const Sample& sample, int count);

  // The most that was resident of the programs that the last work ran; 0: it ran none, this process
  // did the work.
  uint64_t programs_peak_bytes() const { return programs_peak_bytes_; }

 protected:
  uint64_t programs_peak_bytes_ = 0;
};

// One way to move the samples: how its server is started, from a process without threads, and how,
// in another such process, its client is made.
struct Contender {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<ServerProcess>>(const Samples&)> serve;
  std::function<absl::StatusOr<std::unique_ptr<Client>>(const Samples&, int port)> connect;
};

// The programs that a contender needs are not installed: Unavailable.
Contender Peerchunk();
Contender PeerchunkOverGrpc();  // The same server; gRPC's own client.
// `folder`: an empty one for the certificates, which are made here.
absl::StatusOr<Contender> PeerchunkWithTls(const std::string& folder);
Contender NaivePort();
Contender RawTcp();
absl::StatusOr<Contender> NginxAndCurl();
absl::StatusOr<Contender> Nbd();

inline constexpr char kPeerchunk[] = "peerchunk";
inline constexpr char kPeerchunkTls[] = "peerchunk, mTLS";
inline constexpr char kPeerchunkGrpc[] = "peerchunk, gRPC client";
inline constexpr char kNaivePort[] = "naive port";
inline constexpr char kRawTcp[] = "raw TCP";
inline constexpr char kNginxAndCurl[] = "nginx + curl";
inline constexpr char kNbd[] = "nbdkit + nbdcopy/fio";

}  // namespace peerchunk::bench
