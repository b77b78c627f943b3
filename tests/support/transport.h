#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "peerchunk/peer/grpc_connector.h"
#include "peerchunk/peer/http2_connector.h"

namespace peerchunk::test {

// The ways to reach a peer: what holds over one has to hold over the other. Nodes and tools use
// HTTP/2, and gRPC's own client where they are given credentials that only gRPC knows.
enum class Transport : uint8_t { kHttp2, kGrpc };

inline std::shared_ptr<ChunkServiceConnector> ConnectorOver(Transport transport) {
  if (transport == Transport::kGrpc) return GrpcConnector::Create({.insecure_plaintext = true});
  return Http2Connector::Create({.insecure_plaintext = true});
}

inline std::string NameOf(Transport transport) {
  return transport == Transport::kGrpc ? "Grpc" : "Http2";
}

}  // namespace peerchunk::test
