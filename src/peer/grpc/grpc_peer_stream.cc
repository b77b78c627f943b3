#include "peer/grpc/grpc_peer_stream.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

#include "base/grpc_status.h"
#include "peer/grpc/wire.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr char kMethod[] = "/peerchunk.v1.ChunkService/GetBuildFile";
constexpr char kRetryAfterKey[] = "peerchunk-retry-after-ms";

grpc::ByteBuffer Serialize(const v1::GetBuildFileRequest& request) {
  grpc::Slice slice(request.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace

std::chrono::system_clock::time_point ToSystemTime(Clock& clock, absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return std::chrono::system_clock::time_point::max();
  // Within what the system clock can count, also for a deadline in the infinite past.
  const absl::Duration left =
      std::clamp(deadline - clock.Now(), absl::ZeroDuration(), absl::Hours(24 * 365));
  return std::chrono::system_clock::now() + absl::ToChronoMicroseconds(left);
}

absl::Status CallStatus(const grpc::Status& status, const grpc::ClientContext& context) {
  absl::Status result = ToAbslStatus(status);
  if (result.code() != absl::StatusCode::kResourceExhausted) return result;
  // gRPC 1.51 offers nothing but the text to tell its own refusal from the peer's.
  if (status.error_message().find("larger than max") != std::string::npos) {
    return absl::DataLossError(
        absl::StrCat("the peer sent a message over the limit: ", status.error_message()));
  }
  const auto& trailers = context.GetServerTrailingMetadata();
  if (const auto hint = trailers.find(kRetryAfterKey); hint != trailers.end()) {
    uint32_t ms = 0;
    const grpc::string_ref text = hint->second;
    if (std::from_chars(text.data(), text.data() + text.size(), ms).ec == std::errc()) {
      return WithRetryAfter(std::move(result), absl::Milliseconds(ms));
    }
  }
  return result;
}

GrpcPeerStream::GrpcPeerStream(std::shared_ptr<grpc::Channel> channel, const PeerRequest& request,
                               const PeerCallOptions& options, Clock& clock)
    : channel_(std::move(channel)), clock_(clock), stub_(channel_) {
  context_.set_deadline(ToSystemTime(clock_, options.deadline));
  // One batch carries the metadata, the request and the half-close.
  context_.set_initial_metadata_corked(true);
  call_ = stub_.PrepareCall(&context_, kMethod, &queue_);
  call_->StartCall(nullptr);
  call_->WriteLast(Serialize(RequestToWire(request)), grpc::WriteOptions(),
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
    auto decoded = MessageDecoder::Decode(*arrived_);
    arrived_.reset();
    if (!decoded.ok()) {
      context_.TryCancel();
      return decoded.status();
    }
    current_.emplace(*std::move(decoded));
    return current_->message();
  }
  if (!end_->ok()) return *end_;
  return std::nullopt;
}

}  // namespace peerchunk
