#include "cli/library.h"

#include <random>
#include <utility>

#include "base/default_paths.h"
#include "cli/command.h"
#include "cli/control_client.h"
#include "node/open_base.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/status.h"
#include "peerchunk/peer/http2_connector.h"

namespace peerchunk::cli {
namespace {

std::string BaseLocation(const std::string& given) {
  return given.starts_with("gs://") ? given : AbsolutePath(given);
}

}  // namespace

std::vector<CLI::Option*> LibraryFlags::AddPeersTo(CLI::App& command) {
  std::vector<CLI::Option*> added = {
      command
          .add_option("--peer-network", peer_networks,
                      "A network that peers lie in; may be repeated. Default: the private ranges")
          ->type_name("CIDR")
          ->allow_extra_args(false),
      command.add_option("--tls-cert", tls.certificate_path, "A certificate to show to peers")
          ->type_name("PEM"),
      command.add_option("--tls-key", tls.key_path, "Its private key")->type_name("PEM"),
      command.add_option("--tls-ca", tls.authority_path, "Who signs the nodes' certificates")
          ->type_name("PEM"),
      command
          .add_option("--tls-peer-name", tls.peer_names,
                      "A name that a peer's certificate may carry")
          ->type_name("NAME")
          ->allow_extra_args(false),
      command.add_flag("--insecure-plaintext", insecure_plaintext,
                       "Allow plaintext to peers beyond loopback")};
  for (CLI::Option* const option : added) option->group("Peers");
  return added;
}

void LibraryFlags::AddTo(CLI::App& command) {
  CLI::Option* const without_daemon =
      command
          .add_option("--base", base,
                      "Read from this base, and --source, without a daemon: a folder, or "
                      "gs://BUCKET[/PREFIX]")
          ->type_name("PATH|gs://...");
  for (CLI::Option* const option : AddPeersTo(command)) option->needs(without_daemon);
}

absl::StatusOr<AddressPolicy> LibraryFlags::Policy() const {
  // The tool listens nowhere; a loopback peer is what an operator on that machine asks for.
  return AddressPolicy::Create({.networks = peer_networks, .own_addresses = {"127.0.0.1:0"}});
}

absl::StatusOr<std::unique_ptr<Library>> Library::Open(const LibraryFlags& flags) {
  std::unique_ptr<Library> library(new Library);
  PEERCHUNK_ASSIGN_OR_RETURN(const TransportCredentials credentials,
                             MakeTransportCredentials(flags.tls));
  PEERCHUNK_ASSIGN_OR_RETURN(AddressPolicy policy, flags.Policy());
  PEERCHUNK_ASSIGN_OR_RETURN(library->base_, OpenBase({.location = BaseLocation(flags.base),
                                                       .must_exist = true,
                                                       .metrics = &library->metrics_}));
  PeerDirectory::Options options{.policy = std::move(policy)};
  options.connector = Http2Connector::Create(
      {.tls = credentials.identity, .insecure_plaintext = flags.insecure_plaintext});
  options.executor = &library->hedges_;
  options.metrics = &library->metrics_;
  options.seed = std::random_device()();
  PEERCHUNK_ASSIGN_OR_RETURN(library->directory_, PeerDirectory::Create(std::move(options)));
  return library;
}

SourceBytes Library::BytesOf(const BuildId& build) const {
  SourceBytes sum;
  for (const FileKind kind : kAllFileKinds) {
    const SourceBytes bytes = directory_->BytesOf({build, kind});
    sum.peer += bytes.peer;
    sum.base += bytes.base;
    sum.wasted += bytes.wasted;
  }
  return sum;
}

absl::StatusOr<std::shared_ptr<StorageProvider>> OpenBaseOrDaemons(const std::string& base,
                                                                   const std::string& control,
                                                                   std::stop_token interrupted) {
  if (!base.empty()) return OpenBase({.location = BaseLocation(base), .must_exist = true});
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(control, std::move(interrupted)));
  PEERCHUNK_ASSIGN_OR_RETURN(
      const v1::NodeStatus status,
      client->Call(&v1::SandboxService::Stub::GetStatus, v1::GetStatusRequest()));
  return OpenBase({.location = status.base(), .must_exist = true});
}

}  // namespace peerchunk::cli
