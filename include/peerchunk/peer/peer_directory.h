#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/range.h"
#include "peerchunk/peer/address_policy.h"
#include "peerchunk/peer/chunk_service_client.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// The time that reads may spend on a peer before they go elsewhere. Floors keep a timer that
// learned from a fast peer from locking a cold one out.
struct PeerBudgets {
  absl::Duration dial = absl::Milliseconds(1500);
  absl::Duration first_byte = absl::Seconds(3);
  absl::Duration stall = absl::Seconds(2);  // Over which a stream must have kept the floor rate.
  uint64_t floor_bytes_per_second = 256 * kKiB;
  absl::Duration hedge_floor = absl::Milliseconds(20);
  absl::Duration hedge_ceiling = absl::Milliseconds(500);
  double hedge_share = 0.05;  // Of all reads...
  double hedge_burst = 10;    // ...after so many at once.
  double base_reserve = 0.3;  // Share of the deadline kept for the other sources.
  absl::Duration quarantine = absl::Minutes(10);
  absl::Duration not_available_pause = absl::Seconds(5);
  uint32_t breaker_failures = 3;                          // In a row; then the breaker opens.
  absl::Duration breaker_open = absl::Seconds(2);         // Doubling up to 60 s.
  absl::Duration retry_backoff = absl::Milliseconds(50);  // Doubling up to 2 s, while "not yet".
  // A silent base is left after this long while a peer may still help.
  absl::Duration base_stall = absl::Seconds(5);
  // A read that makes no progress for this long ends, whatever its deadline.
  absl::Duration give_up = absl::Minutes(2);
};

// Bytes of one file that this process got, by where they came from.
struct SourceBytes {
  uint64_t peer = 0;
  uint64_t base = 0;
  uint64_t wasted = 0;  // Received and dropped: a hedge's loser, a bad message.
};

// What this process has learned of one file by reading it.
struct KnownFile {
  FileKind kind;
  std::optional<uint64_t> size;  // As a peer declared it; so is the checksum.
  std::optional<uint32_t> crc32c;
  SourceBytes bytes;
};

// Everything this process knows of its peers: who may be dialled, their connections and breakers,
// and what they last said of each build, shared by all readers. Makes the storage provider through
// which one build is read. Thread-safe; outlives the providers it makes.
class PeerDirectory {
 public:
  struct Options {
    AddressPolicy policy;
    std::shared_ptr<ChunkServiceConnector> connector;
    PeerBudgets budgets;
    Executor* executor = nullptr;  // For hedges; borrowed, outlives the directory.
    Clock* clock = &Clock::Real();
    Metrics* metrics = nullptr;  // Borrowed; required.
    uint64_t seed = 0;           // Of jitter.
  };
  static absl::StatusOr<std::unique_ptr<PeerDirectory>> Create(Options options);
  ~PeerDirectory();

  // A provider that reads `build`'s objects from the peers at `addresses` first and then from
  // `base`; every other path, and every write, goes to the base. No address: the base alone.
  // PermissionDenied or InvalidArgument for an address that the policy refuses, and then nothing is
  // dialled.
  absl::StatusOr<std::shared_ptr<StorageProvider>> OpenBuild(
      const BuildId& build, const std::vector<std::string>& addresses,
      std::shared_ptr<StorageProvider> base);

  // Where the bytes of a file came from so far.
  SourceBytes BytesOf(const BuildFileId& file) const;
  // The files of a build of which a peer declared the size, or of which bytes came.
  std::vector<KnownFile> FilesOf(const BuildId& build) const;
  // True once any peer said that the build is durable. Final.
  bool KnownDurable(const BuildId& build) const;

  // Internal to the peer module: the state behind the providers.
  struct Impl;

 private:
  explicit PeerDirectory(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace peerchunk
