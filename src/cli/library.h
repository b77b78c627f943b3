#pragma once

#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <absl/status/statusor.h>

#include "node/transport_credentials.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/peer/peer_directory.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk::cli {

// How the tool reads peers and a base by itself, without a daemon.
struct LibraryFlags {
  std::string base;
  std::vector<std::string> peer_networks;
  bool insecure_plaintext = false;
  TlsFiles tls;

  // All but --base; what was added.
  std::vector<CLI::Option*> AddPeersTo(CLI::App& command);
  // Without --base there is a daemon that reads, with flags of its own: then these are refused.
  void AddTo(CLI::App& command);

  absl::StatusOr<AddressPolicy> Policy() const;
};

// Peers and a base, opened from flags. Owned by one subcommand.
class Library {
 public:
  static absl::StatusOr<std::unique_ptr<Library>> Open(const LibraryFlags& flags);

  // The provider of one build, as PeerDirectory::OpenBuild. Must not outlive this.
  absl::StatusOr<std::shared_ptr<StorageProvider>> OpenBuild(
      const BuildId& build, const std::vector<std::string>& addresses) {
    return directory_->OpenBuild(build, addresses, base_);
  }
  // Bytes of all six files of a build by where they came from.
  SourceBytes BytesOf(const BuildId& build) const;

 private:
  Library() : hedges_("pc-hedge", 4) {}

  Metrics metrics_;
  ThreadPool hedges_;
  std::shared_ptr<StorageProvider> base_;
  std::unique_ptr<PeerDirectory> directory_;
};

// The base that --base names, else the one of the daemon at `control`.
absl::StatusOr<std::shared_ptr<StorageProvider>> OpenBaseOrDaemons(const std::string& base,
                                                                   const std::string& control,
                                                                   std::stop_token interrupted);

}  // namespace peerchunk::cli
