#include "storage/gcs/channels.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "storage/gcs/grpc_stub.h"

namespace peerchunk {
namespace {

constexpr char kService[] = "dns:///storage.googleapis.com";
constexpr char kEmulatorVariable[] = "STORAGE_EMULATOR_HOST_GRPC";
constexpr int kReceiveLimitBytes = 64 << 20;
constexpr int kMaxReconnectMs = 5'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
constexpr int kNoPingsMs = 24 * 3600 * 1000;

bool IsLoopback(const std::string& endpoint) {
  const std::string host = endpoint.substr(0, endpoint.rfind(':'));
  return host == "localhost" || host == "[::1]" || host == "127.0.0.1";
}

bool ProductIsComputeEngine() {
  std::ifstream file("/sys/class/dmi/id/product_name");
  std::string name;
  return std::getline(file, name) && absl::StartsWith(name, "Google");
}

}  // namespace

GcsEnvironment GcsEnvironment::OfProcess() {
  GcsEnvironment environment;
  environment.variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  environment.default_credentials = [] { return grpc::GoogleDefaultCredentials(); };
  environment.on_compute_engine = ProductIsComputeEngine;
  return environment;
}

absl::StatusOr<GcsTarget> ChooseGcsTarget(const GcsStorageOptions& options,
                                          const GcsEnvironment& environment) {
  GcsTarget target;
  target.endpoint = options.endpoint;
  if (target.endpoint.empty()) {
    target.endpoint = environment.variable(kEmulatorVariable);
    if (!target.endpoint.empty()) {
      target.credentials = grpc::InsecureChannelCredentials();
      return target;
    }
    target.endpoint = kService;
  }
  if (options.insecure_plaintext) {
    if (!IsLoopback(target.endpoint)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "storage endpoint '", target.endpoint, "': plaintext is for loopback endpoints only"));
    }
    target.credentials = grpc::InsecureChannelCredentials();
    return target;
  }
  target.credentials = environment.default_credentials();
  if (target.credentials == nullptr && environment.on_compute_engine()) {
    target.credentials = grpc::CompositeChannelCredentials(grpc::SslCredentials({}),
                                                           grpc::GoogleComputeEngineCredentials());
  }
  if (target.credentials == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no Google credentials found for gs://", options.bucket,
        ": set GOOGLE_APPLICATION_CREDENTIALS to a key file, run `gcloud auth application-default "
        "login`, or start this on a machine with a service account (for an emulator set ",
        kEmulatorVariable, "=host:port)"));
  }
  return target;
}

grpc::ChannelArguments GcsChannelArguments(size_t index) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt("grpc.channel_id", static_cast<int>(index));
  arguments.SetInt(GRPC_ARG_DNS_ENABLE_SRV_QUERIES, 0);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectMs);
  // No pings, but gRPC takes the time-out for TCP_USER_TIMEOUT, which ends a connection whose
  // peer acknowledges nothing.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kNoPingsMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetMaxReceiveMessageSize(kReceiveLimitBytes);
  return arguments;
}

std::vector<std::unique_ptr<GcsStub>> MakeGcsStubs(const GcsStorageOptions& options,
                                                   const GcsTarget& target) {
  std::vector<std::unique_ptr<GcsStub>> stubs;
  for (size_t i = 0; i < std::max<size_t>(1, options.channels); ++i) {
    stubs.push_back(std::make_unique<GrpcGcsStub>(
        google::storage::v2::Storage::NewStub(
            grpc::CreateCustomChannel(target.endpoint, target.credentials, GcsChannelArguments(i))),
        options.bucket, *options.clock));
  }
  return stubs;
}

}  // namespace peerchunk
