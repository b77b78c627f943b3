#pragma once

#include <memory>
#include <optional>
#include <stop_token>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "peer/wire/message_decoder.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk {

// gpr's wall clock at which `deadline` of `clock` is reached.
std::chrono::system_clock::time_point ToSystemTime(Clock& clock, absl::Time deadline);

// A message of `bytes`; what the transport delivered, where it lies.
grpc::ByteBuffer ToBuffer(const std::string& bytes);
MessageBytes BytesOf(const grpc::ByteBuffer& buffer);

// The call's end as the reader should see it: the status, with the retry hint of the trailing
// metadata attached. A message over the receive limit, which gRPC reports as RESOURCE_EXHAUSTED, is
// DataLoss.
absl::Status CallStatus(const grpc::Status& status, const grpc::ClientContext& context);

// One GetBuildFile call on a completion queue of its own, which the reading thread drives: no
// thread hop, no callback. One message is read ahead while the last is being used.
class GrpcPeerStream final : public PeerStream {
 public:
  GrpcPeerStream(std::shared_ptr<grpc::Channel> channel, const PeerRequest& request,
                 const PeerCallOptions& options, Clock& clock);
  ~GrpcPeerStream() override;

  absl::StatusOr<std::optional<PeerMessage>> Next(absl::Time wait_until) override;
  bool IsAlive() const override { return !end_.has_value(); }
  void Cancel() override { context_.TryCancel(); }

 private:
  // Tags of the operations of the one call.
  enum Tag : intptr_t { kStart = 1, kWrite = 2, kRead = 3, kFinish = 4 };

  void StartRead();
  // Handles one event; true when a message or the end is there.
  bool Handle(Tag tag, bool ok);

  const std::shared_ptr<grpc::Channel> channel_;  // Outlives the call.
  Clock& clock_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer incoming_;
  bool reading_ = false;
  bool finishing_ = false;
  std::optional<grpc::ByteBuffer> arrived_;
  std::optional<MessageDecoder> current_;  // What the caller's pieces point into.
  grpc::Status finish_status_;
  std::optional<absl::Status> end_;  // Set once: the call is over, or given up as malformed.
  // Last, so that it is gone before anything it cancels.
  std::optional<std::stop_callback<std::function<void()>>> on_cancel_;
};

}  // namespace peerchunk
