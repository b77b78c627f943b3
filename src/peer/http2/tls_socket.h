#pragma once

#include <memory>

#include <absl/status/statusor.h>

#include "peer/http2/socket.h"
#include "peerchunk/peer/address_policy.h"
#include "peerchunk/peer/tls_identity.h"

namespace peerchunk::http2 {

// TLS over `inner`, as `identity`, to a server that must be the one at `address`, or have one of
// the names listed, and speak HTTP/2.
absl::StatusOr<std::unique_ptr<Socket>> WrapInTls(std::unique_ptr<Socket> inner,
                                                  TlsIdentity& identity,
                                                  const PeerAddress& address);

}  // namespace peerchunk::http2
