#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/range.h"
#include "peerchunk/template/template_cache.h"

namespace grpc {
class ServerBuilder;
}

namespace peerchunk {

// The server side: answers peers' GetBuildFileInfo, GetBuildFile and ReadBuildFile from what
// TemplateCache::Resolve pins. Completion queues with their own threads, which serve what is in
// memory; disk reads on a pool of their own, and reads that other nodes are asked for on another,
// so that neither holds up what is here; no thread per stream. Whoever owns the grpc::Server calls,
// in this order:
//   RegisterWith(builder)   before BuildAndStart: adds the service and its completion queues
//   Start()                 after BuildAndStart: starts the threads
//   BeginShutdown()         before the server's own Shutdown, which waits for calls: readers' long-
//                           lived streams end as soon as nothing is under way on them
//   Shutdown(deadline)      after the server's own Shutdown, or beside one that waits for calls:
//                           waits for them until the deadline, then cancels them; drains the
//                           queues, joins the threads
class ChunkService {
 public:
  // A reader leaves a source that does not keep 256 KiB/s over 2 s (PeerBudgets). A turn is up to
  // 1 MiB: at this rate it takes half a second, so that two streams keep clear of that.
  static constexpr uint64_t kLeastBytesPerSecond = 2 * kMiB;

  struct Options {
    size_t queue_threads = 2;
    size_t read_threads = 4;
    // Memory that all streams together may hold in messages under way. One peer gets at most a
    // quarter of it, and at most half of what the others leave. Streams wait their turn, demand
    // first; what would wait too long, and a stream beyond `max_streams`, is refused with
    // RESOURCE_EXHAUSTED and a retry hint.
    uint64_t max_bytes_in_flight = 64 * kMiB;
    uint64_t demand_reserve_bytes = 8 * kMiB;  // Of these, never given to prefetch.
    absl::Duration longest_demand_wait = absl::Milliseconds(50);  // Of a request's first bytes.
    absl::Duration longest_prefetch_wait = absl::Seconds(1);
    // A call whose message makes no way for so long is cancelled: its reader does not read.
    absl::Duration stall_timeout = absl::Seconds(30);
    // Bytes of data and of page reads' answers sent to all peers together; 0: no limit; else at
    // least kLeastBytesPerSecond. Streams take turns, demand first, peers in turn; reads of pages
    // do not wait for prefetch. Whose turn does not come within `longest_prefetch_wait`, also in
    // the middle of a stream, is refused as above: before its reader would take this node for
    // stalled.
    uint64_t max_bytes_per_second = 0;
    size_t max_streams = 1024;
    size_t max_streams_per_peer = 256;
    absl::Duration retry_hint = absl::Milliseconds(100);
    // For the reads of what this node has to fetch on a peer's behalf; the peer's own deadline
    // holds too.
    absl::Duration relay_timeout = absl::Seconds(30);
    // Reads on a peer's behalf at once, and those that wait for it; more are refused as above.
    size_t relay_threads = 8;
    size_t max_relays = 64;
    size_t max_relays_per_peer = 32;
    Clock* clock = &Clock::Real();
    Metrics* metrics = nullptr;  // Borrowed; required.
  };

  // `templates` is borrowed and outlives the service.
  static absl::StatusOr<std::unique_ptr<ChunkService>> Create(TemplateCache* templates,
                                                              Options options);
  // Cancels what Shutdown has not drained.
  ~ChunkService();

  void RegisterWith(grpc::ServerBuilder& builder);
  absl::Status Start();
  void BeginShutdown();
  void Shutdown(absl::Time deadline);

 private:
  struct Impl;
  explicit ChunkService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace peerchunk
