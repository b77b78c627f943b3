#pragma once

#include <memory>

#include <absl/status/statusor.h>

#include "peerchunk/peer/tls_identity.h"

namespace grpc {
class ChannelCredentials;
class ServerCredentials;
}  // namespace grpc

namespace peerchunk {

// Credentials for both directions; null members mean plaintext. `identity` is for dialling peers,
// `channel` for what only gRPC's own client can do.
struct TransportCredentials {
  std::shared_ptr<TlsIdentity> identity;
  std::shared_ptr<grpc::ChannelCredentials> channel;
  std::shared_ptr<grpc::ServerCredentials> server;
};

// Reads the files now and again whenever they change, so that certificates are renewed without a
// restart: the identity before each dial, what gRPC uses every `reload_seconds` (at least 1).
// InvalidArgument: some but not all files named, or one that is not PEM; NotFound and
// PermissionDenied: a file that cannot be read, by name.
absl::StatusOr<TransportCredentials> MakeTransportCredentials(const TlsFiles& files,
                                                              unsigned reload_seconds = 10);

}  // namespace peerchunk
