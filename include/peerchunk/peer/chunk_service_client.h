#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string_view>

#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <absl/types/span.h>

#include "peerchunk/base/file_head.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/peer/address_policy.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// What a reader asks a peer for: a range of one file.
struct PeerRequest {
  BuildFileId file;
  uint64_t offset = 0;
  std::optional<uint64_t> length;  // Absent: to the end.
  bool even_if_durable = false;
  uint32_t relays_left = 0;
  bool prefetch = false;  // Nobody waits for these bytes.
};

// The limits of one call to a peer, and where its bytes go.
struct PeerCallOptions {
  absl::Time deadline = absl::InfiniteFuture();
  std::stop_token cancellation;
  // Where the byte at the request's offset goes: a transport may put what comes there itself, at
  // any time until the stream is destroyed, and what it puts there is NOT checked. It writes each
  // byte at most once, in the order of the file, so that what was checked once stays as it is.
  // Null: nowhere. Room for the request's length, which is there.
  char* into = nullptr;
};

// A run of bytes as it came off the wire: NOT checked yet; the reader checks offset, order, length
// and `crc32c` before anyone sees it. Pieces live until the stream's next message, or lie where
// `into` says.
struct PeerExtent {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool zero = false;
  uint32_t crc32c = 0;  // Of the data; unused when zero.
  absl::Span<const std::string_view> pieces;
};

// One message of GetBuildFile.
struct PeerMessage {
  std::optional<FileHead> head;  // In the first message.
  std::optional<PeerExtent> extent;
  bool last = false;
  BuildStatus status;          // With `last`.
  uint64_t next_offset = 0;    // With `last`: the offset reached.
  bool stopped_short = false;  // With `last`: stopped at a block that is not present there.
};

// A GetBuildFile call under way. Used by one thread, except Cancel. The destructor cancels the call
// and returns at once or soon after; nothing of it outlives the destructor.
class PeerStream {
 public:
  virtual ~PeerStream() = default;

  // The next message; nothing once the stream ended with OK (whether or not `last` was seen: that
  // is for the reader to judge). DeadlineExceeded when no message came by `wait_until`: the stream
  // is still alive and may be asked again; IsAlive tells it from a call that ended so. Other errors
  // are the call's status, as the peer or the transport gave it, and final.
  virtual absl::StatusOr<std::optional<PeerMessage>> Next(absl::Time wait_until) = 0;
  virtual bool IsAlive() const = 0;
  // Ends the call; a Next under way returns Cancelled. Any thread.
  virtual void Cancel() = 0;
};

// The wire as the rest of the module sees it: mocked in unit tests, an HTTP/2 client in peer/http2,
// and gRPC's in peer/grpc for credentials that only that knows. One client stands for one peer and
// lane; its calls share a connection that is made when first needed. Thread-safe; kept alive by its
// users, and its channel by the pool until the last call is over.
class ChunkServiceClient {
 public:
  virtual ~ChunkServiceClient() = default;
  virtual absl::StatusOr<FileHead> GetBuildFileInfo(const PeerRequest& request,
                                                    const PeerCallOptions& options) = 0;
  // Starts the call and returns at once; errors of the call come from Next.
  virtual std::unique_ptr<PeerStream> GetBuildFile(const PeerRequest& request,
                                                   const PeerCallOptions& options) = 0;
  // False while a call would first have to wait for a connection. Never blocks; a hint, by which a
  // dial that hangs is told from a peer that is slow to answer.
  virtual bool IsConnected() const { return true; }
};

// Demand reads and bulk transfers travel on connections of their own.
enum class PeerLane : uint8_t { kDemand, kBulk };

// Makes clients. Thread-safe; never blocks on the network.
class ChunkServiceConnector {
 public:
  virtual ~ChunkServiceConnector() = default;
  // Fails when the credentials in force do not allow this address (plaintext beyond loopback).
  virtual absl::StatusOr<std::shared_ptr<ChunkServiceClient>> Connect(const PeerAddress& address,
                                                                      PeerLane lane) = 0;
};

// The hint in a ResourceExhausted status, if it has one (trailing metadata
// "peerchunk-retry-after-ms"), cut to 5 s.
std::optional<absl::Duration> RetryAfter(const absl::Status& status);
// `status` with that hint attached.
absl::Status WithRetryAfter(absl::Status status, absl::Duration hint);

}  // namespace peerchunk
