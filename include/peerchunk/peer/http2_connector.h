#pragma once

#include <cstddef>
#include <memory>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk {

class TlsIdentity;

// A ChunkServiceConnector that speaks gRPC's protocol over HTTP/2 itself, straight from the socket
// into the memory that messages are handed out in: quicker than gRPC's own client, which is there
// for credentials that only gRPC knows (GrpcConnector). No gRPC in it.
//
// One connection for each address and lane, made when first used, never under a lock, and shared by
// all calls; it has no thread, its waiting readers drive it by turns. Connections that nobody has
// used for `idle_timeout` are closed. Thread-safe; clients go on working without their connector.
class Http2Connector final : public ChunkServiceConnector {
 public:
  struct Options {
    // Null: plaintext, which only loopback addresses get unless insecure_plaintext is set.
    std::shared_ptr<TlsIdentity> tls;
    bool insecure_plaintext = false;
    absl::Duration idle_timeout = absl::Minutes(5);
    Clock* clock = &Clock::Real();
  };
  static std::shared_ptr<Http2Connector> Create(Options options);
  ~Http2Connector() override;

  // PermissionDenied when there is no TLS for an address beyond loopback; says what to do.
  absl::StatusOr<std::shared_ptr<ChunkServiceClient>> Connect(const PeerAddress& address,
                                                              PeerLane lane) override;

  // Closes the connections that nobody has used for the idle time-out. Called by itself, too.
  void CloseIdle();
  // Connections that are being made or open.
  size_t connections() const;

 private:
  struct Impl;
  explicit Http2Connector(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace peerchunk
