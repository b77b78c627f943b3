#pragma once

#include <cstddef>
#include <memory>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace grpc {
class ChannelCredentials;
}

namespace peerchunk {

// The gRPC implementation of ChunkServiceConnector: a pool of channels keyed by address and lane,
// all with the one set of credentials that it was made with. A channel connects when first used,
// never under a lock, and has a subchannel pool of its own, so demand and bulk are two connections.
// Channels that nobody has used for `idle_timeout` are closed. Thread-safe; clients keep their
// channel alive, so the connector may go first.
class GrpcConnector final : public ChunkServiceConnector {
 public:
  struct Options {
    // Null: plaintext, which only loopback addresses get unless insecure_plaintext is set.
    std::shared_ptr<grpc::ChannelCredentials> credentials;
    bool insecure_plaintext = false;
    absl::Duration idle_timeout = absl::Minutes(5);
    Clock* clock = &Clock::Real();
  };
  static std::shared_ptr<GrpcConnector> Create(Options options);
  ~GrpcConnector() override;

  // PermissionDenied when there are no credentials for an address beyond loopback; says what to do.
  absl::StatusOr<std::shared_ptr<ChunkServiceClient>> Connect(const PeerAddress& address,
                                                              PeerLane lane) override;

  // Channels in the pool, used or idle.
  size_t channels() const;

 private:
  struct Impl;
  explicit GrpcConnector(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace peerchunk
