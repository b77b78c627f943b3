#include "peer/grpc/grpc_peer_stream.h"

#include <algorithm>
#include <string>
#include <utility>

#include "peer/wire/wire.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::chrono::system_clock::time_point ToSystemTime(Clock& clock, absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return std::chrono::system_clock::time_point::max();
  // Within what the system clock can count, also for a deadline in the infinite past.
  const absl::Duration left =
      std::clamp(deadline - clock.Now(), absl::ZeroDuration(), absl::Hours(24 * 365));
  return std::chrono::system_clock::now() + absl::ToChronoMicroseconds(left);
}

absl::Status CallStatus(const grpc::Status& status, const grpc::ClientContext& context) {
  absl::Status result = StatusFromCode(status.error_code(), status.error_message());
  if (result.code() != absl::StatusCode::kResourceExhausted) return result;
  // gRPC 1.51 offers nothing but the text to tell its own refusal from the peer's.
  if (status.error_message().find("larger than max") != std::string::npos) {
    return MessageTooLarge(PeerText(status.error_message()));
  }
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto hint = trailers.find(kRetryAfterKey);
  if (hint == trailers.end()) return result;
  return WithRetryAfterText(std::move(result), {hint->second.data(), hint->second.size()});
}

MessageBytes BytesOf(const grpc::ByteBuffer& buffer) {
  const auto slices = std::make_shared<std::vector<grpc::Slice>>();
  MessageBytes bytes;
  // Dump fails only for a compressed buffer that cannot be inflated; its message is then too short.
  if (!buffer.Dump(slices.get()).ok()) return bytes;
  for (const grpc::Slice& slice : *slices) {
    bytes.pieces.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  bytes.owner = slices;
  return bytes;
}

GrpcPeerStream::GrpcPeerStream(std::shared_ptr<grpc::Channel> channel, const PeerRequest& request,
                               const PeerCallOptions& options, Clock& clock)
    : channel_(std::move(channel)), clock_(clock), stub_(channel_) {
  context_.set_deadline(ToSystemTime(clock_, options.deadline));
  // One batch carries the metadata, the request and the half-close.
  context_.set_initial_metadata_corked(true);
  call_ = stub_.PrepareCall(&context_, kGetBuildFileMethod, &queue_);
  call_->StartCall(nullptr);
  call_->WriteLast(ToBuffer(EncodeGetBuildFile(request)), grpc::WriteOptions(),
                   reinterpret_cast<void*>(kWrite));
  StartRead();
  if (options.cancellation.stop_possible()) {
    on_cancel_.emplace(options.cancellation, [this] { context_.TryCancel(); });
  }
}

GrpcPeerStream::~GrpcPeerStream() {
  on_cancel_.reset();
  if (!end_) context_.TryCancel();
  if (!finishing_) {
    finishing_ = true;
    call_->Finish(&finish_status_, reinterpret_cast<void*>(kFinish));
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

void GrpcPeerStream::StartRead() {
  reading_ = true;
  call_->Read(&incoming_, reinterpret_cast<void*>(kRead));
}

bool GrpcPeerStream::Handle(Tag tag, bool ok) {
  switch (tag) {
    case kStart:
    case kWrite:
      return false;  // A failed write shows as a failed read.
    case kRead:
      reading_ = false;
      if (ok) {
        arrived_.emplace();
        arrived_->Swap(&incoming_);
        StartRead();
        return true;
      }
      finishing_ = true;
      call_->Finish(&finish_status_, reinterpret_cast<void*>(kFinish));
      return false;
    case kFinish:
      end_ = CallStatus(finish_status_, context_);
      return true;
  }
  return false;
}

absl::StatusOr<std::optional<PeerMessage>> GrpcPeerStream::Next(absl::Time wait_until) {
  current_.reset();
  while (!arrived_ && !end_) {
    void* tag = nullptr;
    bool ok = false;
    switch (queue_.AsyncNext(&tag, &ok, ToSystemTime(clock_, wait_until))) {
      case grpc::CompletionQueue::GOT_EVENT:
        Handle(static_cast<Tag>(reinterpret_cast<intptr_t>(tag)), ok);
        break;
      case grpc::CompletionQueue::TIMEOUT:
        return absl::DeadlineExceededError("no message from the peer in time");
      case grpc::CompletionQueue::SHUTDOWN:
        return absl::InternalError("the call's completion queue is shut down");
    }
  }
  if (arrived_) {
    auto decoded = MessageDecoder::Decode(BytesOf(*arrived_));
    arrived_.reset();
    if (!decoded.ok()) {
      context_.TryCancel();
      end_ = decoded.status();
      return *end_;
    }
    current_.emplace(*std::move(decoded));
    return current_->message();
  }
  if (!end_->ok()) return *end_;
  return std::nullopt;
}

}  // namespace peerchunk
