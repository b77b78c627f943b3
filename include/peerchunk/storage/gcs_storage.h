#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/range.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// How long the provider waits, how often it tries again and how it cuts uploads. The defaults are
// for production; docs/gcs.md says when to change which.
struct GcsTuning {
  // Full-jitter backoff: a uniformly random part of a bound that doubles from the first to the
  // second.
  absl::Duration read_backoff_first = absl::Milliseconds(50);
  absl::Duration read_backoff_most = absl::Seconds(5);
  absl::Duration write_backoff_first = absl::Milliseconds(200);
  absl::Duration write_backoff_most = absl::Seconds(30);
  // The least wait after "too much at once", a conflicting writer or a refused token.
  absl::Duration pause = absl::Seconds(1);

  absl::Duration first_byte = absl::Seconds(3);     // Of one attempt of a read.
  absl::Duration read_stall = absl::Seconds(5);     // Between two messages with data.
  absl::Duration answer = absl::Seconds(10);        // To a request without a stream.
  absl::Duration write_stall = absl::Seconds(20);   // Until one message of an upload is taken.
  absl::Duration write_answer = absl::Seconds(60);  // From the last message of an upload.
  absl::Duration read_budget = absl::Seconds(60);   // Over all attempts, without a byte gained.
  absl::Duration write_budget = absl::Minutes(5);   // Likewise, without persisted progress.
  absl::Duration clean_up = absl::Seconds(2);       // For dropping a session nobody needs any more.

  uint64_t one_shot_bytes = 8 * kMiB;    // Up to here one WriteObject, no session.
  uint64_t parallel_bytes = 128 * kMiB;  // Above this, parts and one compose.
  uint64_t part_bytes = 64 * kMiB;       // Least size of a part; at most 32 parts.
  // A stream of a session is half-closed after this much or this long, to learn what is persisted.
  uint64_t segment_bytes = 32 * kMiB;
  absl::Duration segment_time = absl::Seconds(30);
};

// The upload sessions that a process may have open at a time, with their threads and their share of
// the network. Thread-safe; shared by all providers that are given the same one.
class GcsUploadLanes {
 public:
  virtual ~GcsUploadLanes() = default;
  // `bytes_per_second` 0: no limit. `clock` is borrowed.
  static std::shared_ptr<GcsUploadLanes> Create(size_t lanes, uint64_t bytes_per_second,
                                                Clock& clock = Clock::Real());
};

struct GcsStorageOptions {
  std::string bucket;
  std::string prefix;  // Where in the bucket, without a slash at either end; may be empty.

  // host:port; empty: what STORAGE_EMULATOR_HOST_GRPC names (then without TLS or credentials), else
  // the public service.
  std::string endpoint;
  bool insecure_plaintext = false;  // Only for a loopback endpoint.
  size_t channels = 8;

  // Where the ids of upload sessions survive a restart of the process; empty: they don't, and a
  // large upload that was under way begins again.
  std::string session_folder;
  std::shared_ptr<GcsUploadLanes> lanes;  // Null: eight lanes of its own, without a limit of speed.

  GcsTuning tuning;
  Clock* clock = &Clock::Real();     // Borrowed, as the two below.
  Metrics* metrics = nullptr;        // Null: not counted.
  std::function<uint64_t()> random;  // 64 random bits, thread-safe; empty: seeded from the system.
};

// A bucket of Google Cloud Storage over its public gRPC API (google.storage.v2). Reads go on at the
// byte reached after any failure, on another channel; writes are confirmed by size and CRC32C or
// are errors. ObjectStat::version is the object's generation. Paths under ".peerchunk/" are the
// provider's own.
class GcsStorageProvider {
 public:
  // Fails, and says what to do, when there are no credentials (FailedPrecondition), no such bucket
  // (NotFound) or no access (PermissionDenied, Unauthenticated). A service out of reach is no
  // failure: a node has to start without it.
  static absl::StatusOr<std::unique_ptr<StorageProvider>> Open(GcsStorageOptions options);
};

struct GcsUrl {
  std::string bucket;
  std::string prefix;
};

// Parses "gs://BUCKET[/PREFIX]"; one slash at the end is dropped. InvalidArgument for anything
// else.
absl::StatusOr<GcsUrl> ParseGcsUrl(std::string_view url);

}  // namespace peerchunk
