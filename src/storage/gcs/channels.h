#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <grpcpp/grpcpp.h>

#include "peerchunk/storage/gcs_storage.h"
#include "storage/gcs_core/gcs_stub.h"

namespace peerchunk {

// What of the process's surroundings decides about the way to the service.
struct GcsEnvironment {
  std::function<std::string(const char*)> variable;  // Empty when it is not set.
  std::function<std::shared_ptr<grpc::ChannelCredentials>()>
      default_credentials;  // May return null.
  std::function<bool()> on_compute_engine;

  static GcsEnvironment OfProcess();
};

// Where the service is, and as whom to speak to it.
struct GcsTarget {
  std::string endpoint;
  std::shared_ptr<grpc::ChannelCredentials> credentials;
};

// FailedPrecondition, with what to do, when there are no credentials; InvalidArgument for plaintext
// to anything but this machine.
absl::StatusOr<GcsTarget> ChooseGcsTarget(const GcsStorageOptions& options,
                                          const GcsEnvironment& environment);

// Of the channel with this number.
grpc::ChannelArguments GcsChannelArguments(size_t index);

// Channels that share no connection.
std::vector<std::unique_ptr<GcsStub>> MakeGcsStubs(const GcsStorageOptions& options,
                                                   const GcsTarget& target);

}  // namespace peerchunk
