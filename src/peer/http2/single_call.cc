#include "peer/http2/single_call.h"

#include <algorithm>
#include <utility>

#include "peer/wire/wire.h"
#include "peerchunk/base/status.h"

namespace peerchunk::http2 {
namespace {

std::optional<InOrderPlacement> PlacementOf(const PeerRequest& request,
                                            const PeerCallOptions& options) {
  if (options.into == nullptr || !request.length) return std::nullopt;
  return InOrderPlacement(request.offset, absl::MakeSpan(options.into, *request.length));
}

}  // namespace

// What came and was not taken yet. Its data is bounded by the call's window; messages with next to
// nothing in them are counted for what they take besides.
class SingleCall::Sink final : public CallSink {
 public:
  Sink(std::shared_ptr<Waiter> waiter, std::optional<InOrderPlacement> placement)
      : waiter_(std::move(waiter)), placement_(std::move(placement)) {}

  absl::Span<char> PlaceTail(std::string_view head, size_t message_bytes) override {
    return placement_->Place(head, message_bytes);
  }

  void OnMessage(const std::shared_ptr<Connection::Call>&, MessageBytes message,
                 Waiters& ready) override {
    MutexLock lock(mutex_);
    if (end_) return;
    const size_t bytes = BytesOf(message);
    if (waiting_bytes_ + bytes > kMostWaitingBytes) {
      end_ = absl::ResourceExhaustedError("the peer sent far more messages than were taken");
    } else {
      waiting_bytes_ += bytes;
      messages_.push_back(std::move(message));
    }
    ready.push_back(waiter_);
  }
  void OnEnd(const absl::Status& status, bool unanswered, Waiters& ready) override {
    MutexLock lock(mutex_);
    if (end_) return;
    end_ = status;
    unanswered_ = unanswered;
    ready.push_back(waiter_);
  }

  std::optional<MessageBytes> TakeMessage() {
    MutexLock lock(mutex_);
    if (messages_.empty()) return std::nullopt;
    MessageBytes message = std::move(messages_.front());
    messages_.pop_front();
    waiting_bytes_ -= BytesOf(message);
    return message;
  }
  std::optional<absl::Status> end() const {
    MutexLock lock(mutex_);
    return end_;
  }
  bool unanswered() const {
    MutexLock lock(mutex_);
    return unanswered_;
  }

 private:
  // What a message takes beside its bytes.
  static constexpr size_t kMessageBytes = 256;
  // Four windows: a peer that keeps within one gets here with a hundred thousand messages alone.
  static constexpr size_t kMostWaitingBytes = 4 * size_t{Connection::kCallWindow};
  static size_t BytesOf(const MessageBytes& message) { return kMessageBytes + message.size(); }

  const std::shared_ptr<Waiter> waiter_;
  std::optional<InOrderPlacement> placement_;  // The driver's.
  mutable Mutex mutex_;
  std::deque<MessageBytes> messages_ PEERCHUNK_GUARDED_BY(mutex_);
  size_t waiting_bytes_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> end_ PEERCHUNK_GUARDED_BY(mutex_);
  bool unanswered_ PEERCHUNK_GUARDED_BY(mutex_) = false;
};

SingleCall::SingleCall(ConnectionSource connections, std::string_view method, std::string request,
                       PeerCallOptions options, Clock& clock,
                       std::optional<InOrderPlacement> placement)
    : connections_(std::move(connections)),
      method_(method),
      request_(std::move(request)),
      options_(std::move(options)),
      clock_(clock),
      placement_(std::move(placement)) {
  Begin();
  if (options_.cancellation.stop_possible()) {
    on_cancel_.emplace(options_.cancellation, [this] { Cancel(); });
  }
}

SingleCall::~SingleCall() {
  on_cancel_.reset();
  const Parts parts = Now();
  if (parts.call != nullptr) parts.connection->Leave(*parts.call);
}

SingleCall::Parts SingleCall::Now() {
  MutexLock lock(mutex_);
  return {.connection = connection_, .waiter = waiter_, .call = call_};
}

void SingleCall::Begin() {
  auto connection = connections_();
  if (!connection.ok()) {
    end_ = connection.status();
    return;
  }
  const auto waiter = std::make_shared<Waiter>();
  was_open_ = (*connection)->IsOpen();
  sink_ = std::make_shared<Sink>(waiter, placement_);
  auto call = (*connection)
                  ->Start({.method = method_,
                           .timeout = options_.deadline == absl::InfiniteFuture()
                                          ? absl::InfiniteDuration()
                                          : options_.deadline - clock_.Now(),
                           .message = request_,
                           .head_bytes = placement_ ? InOrderPlacement::kHeadBytes : 0},
                          sink_);
  bool cancelled = false;
  {
    MutexLock lock(mutex_);
    connection_ = *connection;
    waiter_ = waiter;
    call_ = call;
    cancelled = cancelled_;
  }
  if (cancelled) Cancel();
}

// The peer hears of it at once, whether anybody waits or not.
void SingleCall::Cancel() {
  Parts parts;
  {
    MutexLock lock(mutex_);
    cancelled_ = true;
    parts = {.connection = connection_, .waiter = waiter_, .call = call_};
  }
  if (parts.call == nullptr) return;
  parts.connection->Cancel(*parts.waiter);
  parts.connection->Leave(*parts.call);
}

absl::StatusOr<std::optional<MessageBytes>> SingleCall::Next(absl::Time wait_until) {
  while (true) {
    if (end_) {
      if (end_->ok()) return std::nullopt;
      return *end_;
    }
    const Parts parts = Now();
    if (auto message = sink_->TakeMessage()) {
      parts.connection->Taken(*parts.call, message->size());
      return message;
    }
    if (const auto end = sink_->end()) {
      if (sink_->unanswered() && was_open_ && !std::exchange(begun_again_, true)) {
        Begin();
      } else {
        end_ = *end;
        parts.connection->Leave(*parts.call);  // The sink may have had enough before the peer.
      }
      continue;
    }
    const absl::Status waited =
        parts.connection->Wait(parts.waiter, std::min(wait_until, options_.deadline));
    if (waited.ok()) continue;
    const bool late = absl::IsDeadlineExceeded(waited);
    if (late && clock_.Now() < options_.deadline) return waited;
    end_ = waited;
    parts.connection->Leave(*parts.call);
  }
}

Http2PeerStream::Http2PeerStream(ConnectionSource connections, const PeerRequest& request,
                                 const PeerCallOptions& options, Clock& clock)
    : call_(std::move(connections), kGetBuildFileMethod, EncodeGetBuildFile(request), options,
            clock, PlacementOf(request, options)) {}

absl::StatusOr<std::optional<PeerMessage>> Http2PeerStream::Next(absl::Time wait_until) {
  current_.reset();
  if (malformed_) return *malformed_;
  PEERCHUNK_ASSIGN_OR_RETURN(auto message, call_.Next(wait_until));
  if (!message) return std::nullopt;
  auto decoded = MessageDecoder::Decode(*std::move(message));
  if (!decoded.ok()) {
    call_.Cancel();
    malformed_ = decoded.status();
    return *malformed_;
  }
  current_.emplace(*std::move(decoded));
  return current_->message();
}

}  // namespace peerchunk::http2
