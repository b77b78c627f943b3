#pragma once

#include <string>

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

// The only bridge between grpc::Status and absl::Status. Header-only, so that base itself links no
// gRPC; included by the modules that speak it.
namespace peerchunk {

// Both enumerations carry the same numbers (grpc/status.h, absl/status/status.h). A number outside
// them, which a foreign server may send, becomes Unknown.
inline absl::Status ToAbslStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int code = status.error_code();
  const bool known = code > 0 && code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  return absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
                      status.error_message());
}

// The message is cut: it travels in trailing metadata, where an overlong one fails the whole call.
inline grpc::Status ToGrpcStatus(const absl::Status& status) {
  constexpr size_t kMaxMessageBytes = 1024;
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message().substr(0, kMaxMessageBytes)));
}

}  // namespace peerchunk
