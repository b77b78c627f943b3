#pragma once

#include <memory>
#include <string>

#include "google/storage/v2/storage.grpc.pb.h"
#include "peerchunk/base/clock.h"
#include "storage/gcs_core/gcs_stub.h"

namespace peerchunk {

// GcsStub over one gRPC channel with the blocking API. Puts the routing header and the idempotency
// token on every call. Owned by the channel pool; thread-safe.
class GrpcGcsStub final : public GcsStub {
 public:
  // `clock` is borrowed: deadlines are on it.
  GrpcGcsStub(std::unique_ptr<google::storage::v2::Storage::StubInterface> stub, std::string bucket,
              Clock& clock);

  std::shared_ptr<GcsCall> NewCall(const GcsCallOptions& options) override;

 private:
  const std::unique_ptr<google::storage::v2::Storage::StubInterface> stub_;
  const std::string bucket_;
  Clock& clock_;
};

}  // namespace peerchunk
