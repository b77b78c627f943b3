#include "node/transport_credentials.h"

#include <fcntl.h>

#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>

#include <absl/types/span.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// Lets a certificate through when it carries one of the listed names. The chain was checked before.
class PeerNameVerifier final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  explicit PeerNameVerifier(std::vector<std::string> names) : names_(std::move(names)) {}

  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* request,
              std::function<void(grpc::Status)>, grpc::Status* status) override {
    for (const auto& list : {request->dns_names(), request->ip_names(), request->uri_names()}) {
      for (const grpc::string_ref& name : list) {
        if (std::find(names_.begin(), names_.end(), std::string_view(name.data(), name.size())) !=
            names_.end()) {
          return true;
        }
      }
    }
    *status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED,
                           "the peer's certificate has none of the names in --tls-peer-name");
    return true;
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest*) override {}

 private:
  const std::vector<std::string> names_;
};

absl::Status CheckPem(const std::string& path, std::string_view flag) {
  const absl::StatusOr<File> file = File::Open(path, O_RDONLY);
  if (!file.ok()) return Annotate(file.status(), absl::StrCat(AbslView(flag), " ", path));
  std::string text(64 * kKiB, '\0');
  const absl::StatusOr<size_t> got = file->ReadAt(0, absl::MakeSpan(text));
  if (!got.ok()) return Annotate(got.status(), absl::StrCat(AbslView(flag), " ", path));
  if (text.find("-----BEGIN ") == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(AbslView(flag), " ", path, ": not a PEM file"));
  }
  return absl::OkStatus();
}

void SetCommon(grpc::experimental::TlsCredentialsOptions& options) {
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
}

}  // namespace

absl::StatusOr<TransportCredentials> MakeTransportCredentials(const TlsFiles& files,
                                                              unsigned reload_seconds) {
  if (files.empty()) {
    if (files.peer_names.empty()) return TransportCredentials{};
    return absl::InvalidArgumentError(
        "--tls-peer-name needs --tls-cert, --tls-key and --tls-ca: without TLS nobody shows a "
        "name");
  }
  if (files.certificate_path.empty() || files.key_path.empty() || files.authority_path.empty()) {
    return absl::InvalidArgumentError(
        "--tls-cert, --tls-key and --tls-ca belong together: give all three or none");
  }
  PEERCHUNK_RETURN_IF_ERROR(CheckPem(files.certificate_path, "--tls-cert"));
  PEERCHUNK_RETURN_IF_ERROR(CheckPem(files.key_path, "--tls-key"));
  PEERCHUNK_RETURN_IF_ERROR(CheckPem(files.authority_path, "--tls-ca"));

  PEERCHUNK_ASSIGN_OR_RETURN(auto identity, TlsIdentity::Load(files));
  const auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      files.key_path, files.certificate_path, files.authority_path, reload_seconds);

  grpc::experimental::TlsChannelCredentialsOptions channel;
  channel.set_certificate_provider(provider);
  SetCommon(channel);
  grpc::experimental::TlsServerCredentialsOptions server(provider);
  SetCommon(server);
  server.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  if (files.peer_names.empty()) {
    channel.set_certificate_verifier(
        std::make_shared<grpc::experimental::HostNameCertificateVerifier>());
  } else {
    channel.set_certificate_verifier(PeerNameVerifier::Create<PeerNameVerifier>(files.peer_names));
    channel.set_check_call_host(false);
    server.set_certificate_verifier(PeerNameVerifier::Create<PeerNameVerifier>(files.peer_names));
  }
  return TransportCredentials{
      .identity = std::move(identity),
      .channel = grpc::experimental::TlsCredentials(channel),
      .server = grpc::experimental::TlsServerCredentials(server),
  };
}

}  // namespace peerchunk
