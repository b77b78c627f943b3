#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <grpcpp/client_context.h>

#include "base/grpc_status.h"
#include "peerchunk/v1/sandbox_service.grpc.pb.h"

namespace peerchunk::cli {

// A connection to a daemon's SandboxService. Used by one thread.
class ControlClient {
 public:
  // Unavailable or PermissionDenied when no daemon answers there, and what to do about it.
  static absl::StatusOr<std::unique_ptr<ControlClient>> Connect(const std::string& address,
                                                                std::stop_token interrupted);

  v1::SandboxService::Stub& stub() { return *stub_; }

  // One unary call, e.g. Call(&Stub::GetBuild, request). Cancelled when interrupted.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (v1::SandboxService::Stub::*method)(
                                    grpc::ClientContext*, const Request&, Response*),
                                const Request& request) {
    grpc::ClientContext context;
    const std::stop_callback cancel(interrupted_, [&context] { context.TryCancel(); });
    Response response;
    const grpc::Status status = ((*stub_).*method)(&context, request, &response);
    if (!status.ok()) return ToAbslStatus(status);
    return response;
  }

 private:
  ControlClient(std::unique_ptr<v1::SandboxService::Stub> stub, std::stop_token interrupted)
      : stub_(std::move(stub)), interrupted_(std::move(interrupted)) {}

  std::unique_ptr<v1::SandboxService::Stub> stub_;
  std::stop_token interrupted_;
};

}  // namespace peerchunk::cli
