#pragma once

#include <string>
#include <utility>
#include <vector>

#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"

namespace peerchunk {

// Server reflection for the control socket, so that grpcurl works there. Not gRPC's own plug-in:
// once linked, that adds itself, with a thread pool, to every server of the process, the peers'
// included. Thread-safe; no state.
class ReflectionService final : public grpc::reflection::v1alpha::ServerReflection::Service {
 public:
  // The full names of the services that are served beside it.
  explicit ReflectionService(std::vector<std::string> services) : services_(std::move(services)) {}

  grpc::Status ServerReflectionInfo(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<grpc::reflection::v1alpha::ServerReflectionResponse,
                               grpc::reflection::v1alpha::ServerReflectionRequest>* stream)
      override;

 private:
  const std::vector<std::string> services_;
};

}  // namespace peerchunk
