#pragma once

#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

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

// Who this node is when it dials peers itself (Http2Connector), and whom it believes. Looks at its
// files at each dial and reads them again when they have changed; while what is there cannot be
// used, it goes on with what it had. Thread-safe.
class TlsIdentity {
 public:
  // InvalidArgument: not all three files are named, or what is in them does not fit together.
  static absl::StatusOr<std::shared_ptr<TlsIdentity>> Load(TlsFiles files);
  ~TlsIdentity();
  TlsIdentity(const TlsIdentity&) = delete;
  TlsIdentity& operator=(const TlsIdentity&) = delete;

  // Internal to the peer module.
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  explicit TlsIdentity(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace peerchunk
