#pragma once

#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

namespace grpc {
class ChannelCredentials;
class ServerCredentials;
}  // namespace grpc

namespace peerchunk {

// PEM files for TLS between nodes, where each side shows a certificate. All three paths or none.
struct TlsFiles {
  std::string certificate_path;  // This node's chain, leaf first.
  std::string key_path;
  std::string authority_path;  // Who signs the nodes' certificates.
  // Names (DNS, IP, URI) of which a peer's certificate must have one. Empty: any certificate of the
  // authority may dial in, and one dialled must be for the address that was dialled.
  std::vector<std::string> peer_names;

  bool empty() const {
    return certificate_path.empty() && key_path.empty() && authority_path.empty();
  }
};

// Credentials for both directions; null members mean plaintext.
struct TransportCredentials {
  std::shared_ptr<grpc::ChannelCredentials> channel;
  std::shared_ptr<grpc::ServerCredentials> server;
};

// Reads the files now and again whenever they change, so that certificates are renewed without a
// restart. InvalidArgument: some but not all files named, or one that is not PEM; NotFound and
// PermissionDenied: a file that cannot be read, by name.
absl::StatusOr<TransportCredentials> MakeTransportCredentials(const TlsFiles& files);

}  // namespace peerchunk
