// What comes over a connection, on its driver's thread.
#include <algorithm>
#include <cstring>
#include <utility>

#include "peer/http2/connection.h"
#include "peer/http2/connection_call.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::http2 {
namespace {

constexpr size_t kMaxControlFrameBytes = 64 * kKiB;
constexpr uint64_t kGiveBackAt = 1 << 29;
constexpr size_t kLongMessageBytes = 256 * kKiB;
// A peer that makes this client answer, and does not read the answers, is left.
constexpr size_t kMaxQueuedBytes = 4 * kMiB;

absl::Status Violation(std::string_view what) {
  return absl::InternalError(absl::StrCat("the peer broke HTTP/2: ", AbslView(what)));
}

absl::Status FromReset(uint32_t code) {
  switch (static_cast<ErrorCode>(code)) {
    case ErrorCode::kEnhanceYourCalm:
      return absl::ResourceExhaustedError("the peer reset the call: too much at once");
    case ErrorCode::kRefusedStream:
    case ErrorCode::kCancel:
      return absl::UnavailableError("the peer reset the call");
    default:
      return absl::InternalError(absl::StrCat("the peer reset the call, HTTP/2 error ", code));
  }
}

// A peer that drains and one that will have no more of this client both go.
absl::Status Farewell(uint32_t code, std::string_view debug) {
  std::string text = "the peer is closing the connection";
  if (code != static_cast<uint32_t>(ErrorCode::kNoError)) {
    absl::StrAppend(&text, ", HTTP/2 error ", code);
  }
  if (!debug.empty()) absl::StrAppend(&text, ": ", PeerText(debug));
  return absl::UnavailableError(text);
}

}  // namespace

absl::Status Connection::Parse(Waiters& ready) {
  while (true) {
    if (data_ && data_->left == 0 && data_->padding == 0) {
      PEERCHUNK_RETURN_IF_ERROR(EndData(ready));
      continue;
    }
    const size_t there = staged_end_ - staged_begin_;
    const char* const at = staged_.data() + staged_begin_;
    if (data_) {
      if (there == 0) return absl::OkStatus();
      size_t take = std::min<size_t>(there, data_->left > 0 ? data_->left : data_->padding);
      if (data_->left == 0) {
        data_->padding -= static_cast<uint32_t>(take);
      } else if (data_->call == nullptr) {
        data_->left -= static_cast<uint32_t>(take);
      } else {
        if (!BeginFill()) continue;
        const absl::Span<char> target = data_->call->assembler.Target();
        take = std::min(take, target.size());
        std::memcpy(target.data(), at, take);
        PEERCHUNK_RETURN_IF_ERROR(TakeData(take, ready));
      }
      staged_begin_ += take;
      continue;
    }
    if (there < kFrameHeaderBytes) return absl::OkStatus();
    const FrameHeader frame = ParseFrameHeader(at);
    if (headers_ && !(frame.Is(FrameType::kContinuation) && frame.stream == headers_->stream)) {
      return Violation("another frame inside a header block");
    }
    if (frame.Is(FrameType::kData)) {
      const bool padded = frame.Has(kPadded);
      if (frame.length > kFrameBytes) return Violation("a frame over the limit");
      if (padded && there == kFrameHeaderBytes) return absl::OkStatus();
      const uint32_t padding = padded ? static_cast<uint8_t>(at[kFrameHeaderBytes]) : 0;
      if (padded && padding + 1 > frame.length) return Violation("more padding than there is data");
      staged_begin_ += kFrameHeaderBytes + (padded ? 1 : 0);
      PEERCHUNK_RETURN_IF_ERROR(BeginData(frame, padding));
      continue;
    }
    if (frame.length > kMaxControlFrameBytes) return Violation("a frame over the limit");
    if (there < kFrameHeaderBytes + frame.length) return absl::OkStatus();
    staged_begin_ += kFrameHeaderBytes + frame.length;
    PEERCHUNK_RETURN_IF_ERROR(OnFrame(frame, {at + kFrameHeaderBytes, frame.length}, ready));
  }
}

absl::Status Connection::BeginData(const FrameHeader& frame, uint32_t padding) {
  PEERCHUNK_ASSIGN_OR_RETURN(std::shared_ptr<Call> call, FindCall(frame.stream));
  if (call != nullptr && !call->headers) return Violation("data before headers");
  const uint32_t around = frame.Has(kPadded) ? padding + 1 : 0;
  connection_received_ += frame.length;
  data_ = DataFrame{.stream = frame.stream,
                    .call = call,
                    .left = frame.length - around,
                    .padding = padding,
                    .ends_stream = frame.Has(kEndStream)};
  MutexLock lock(mutex_);
  if (connection_received_ >= kGiveBackAt) {
    AppendWindowUpdate(out_, 0, static_cast<uint32_t>(std::exchange(connection_received_, 0)));
  }
  if (call == nullptr) return absl::OkStatus();
  call->receive_window -= frame.length;
  if (call->receive_window < 0) return Violation("more data than was allowed");
  call->taken += around;
  return absl::OkStatus();
}

// Before anything is written to where the frame's call wants it. False: nobody wants it any more.
bool Connection::BeginFill() {
  if (!data_->call->in_place) return true;
  MutexLock lock(mutex_);
  if (data_->call->over) {
    data_->call = nullptr;
    return false;
  }
  filling_ = data_->call.get();
  return true;
}

void Connection::EndFill() {
  if (!data_->call->in_place) return;
  {
    MutexLock lock(mutex_);
    filling_ = nullptr;
  }
  filled_.NotifyAll();
}

// `bytes` of the frame's data are where the assembler wanted them. Ends what BeginFill began.
absl::Status Connection::TakeData(size_t bytes, Waiters& ready) {
  data_->left -= static_cast<uint32_t>(bytes);
  const std::shared_ptr<Call> call = data_->call;
  auto message = call->assembler.Filled(bytes);
  EndFill();
  if (!message.ok()) {
    data_->call = nullptr;
    End(call, message.status(), /*unanswered=*/false, ready);
    return absl::OkStatus();
  }
  if (!message->has_value()) return absl::OkStatus();
  bulk_ = call->assembler.message_bytes() >= kLongMessageBytes;
  call->sink->OnMessage(call, **std::move(message), ready);
  return absl::OkStatus();
}

absl::Status Connection::EndData(Waiters& ready) {
  const DataFrame frame = *std::exchange(data_, std::nullopt);
  if (frame.ends_stream && frame.call != nullptr) {
    PeerHasEnded(*frame.call);
    End(frame.call, CallEnd(*frame.call->headers, {}), /*unanswered=*/false, ready);
  }
  return absl::OkStatus();
}

absl::Status Connection::OnFrame(const FrameHeader& frame, std::string_view payload,
                                 Waiters& ready) {
  switch (static_cast<FrameType>(frame.type)) {
    case FrameType::kHeaders:
    case FrameType::kContinuation:
      return OnHeaders(frame, payload, ready);
    case FrameType::kRstStream:
      return OnReset(frame, payload, ready);
    case FrameType::kSettings:
      return OnSettings(frame, payload);
    case FrameType::kPing:
      return OnPing(frame, payload);
    case FrameType::kGoAway:
      return OnGoAway(frame, payload, ready);
    case FrameType::kWindowUpdate:
      return OnWindowUpdate(frame, payload);
    case FrameType::kPushPromise:
      return Violation("a push that was forbidden");
    default:
      return absl::OkStatus();  // PRIORITY, and what a later version may bring.
  }
}

absl::Status Connection::OnHeaders(const FrameHeader& frame, std::string_view payload,
                                   Waiters& ready) {
  if (frame.Is(FrameType::kContinuation)) {
    if (!headers_) return Violation("a continuation of nothing");
  } else {
    if (frame.Has(kPadded)) {
      const size_t padding = payload.empty() ? 0 : static_cast<uint8_t>(payload[0]);
      if (payload.size() < padding + 1) return Violation("more padding than there are headers");
      payload = payload.substr(1, payload.size() - 1 - padding);
    }
    if (frame.Has(kPriorityFlag)) {
      if (payload.size() < 5) return Violation("headers that are cut short");
      payload.remove_prefix(5);
    }
    headers_ =
        HeaderFrame{.stream = frame.stream, .ends_stream = frame.Has(kEndStream), .block = {}};
  }
  if (headers_->block.size() + payload.size() > kMaxHeaderBlockBytes) {
    return Violation("headers over the limit");
  }
  headers_->block += payload;
  return frame.Has(kEndHeaders) ? OnHeaderBlock(ready) : absl::OkStatus();
}

absl::Status Connection::OnHeaderBlock(Waiters& ready) {
  const HeaderFrame frame = *std::exchange(headers_, std::nullopt);
  PEERCHUNK_ASSIGN_OR_RETURN(HeaderList fields, decoder_.Decode(frame.block));
  PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<Call> call, FindCall(frame.stream));
  if (call == nullptr) return absl::OkStatus();
  if (frame.ends_stream) {
    PeerHasEnded(*call);
    absl::Status end = CallEnd(call->headers.value_or(HeaderList()), fields);
    // A server that gives a call up does so wherever it is.
    if (end.ok() && !call->assembler.idle()) {
      end = absl::DataLossError("the peer ended the call inside a message");
    }
    End(call, end, /*unanswered=*/false, ready);
    return absl::OkStatus();
  }
  if (call->headers) return Violation("headers in the middle of a call");
  const std::string* const status = FindField(fields, ":status");
  const bool interim = status != nullptr && status->starts_with('1');
  if (interim) return absl::OkStatus();
  if (status != nullptr && *status == "200") {
    call->headers = std::move(fields);
  } else {  // What follows is a text for people.
    End(call, CallEnd(fields, {}), /*unanswered=*/false, ready);
  }
  return absl::OkStatus();
}

absl::Status Connection::OnSettings(const FrameHeader& frame, std::string_view payload) {
  if (frame.stream != 0) return Violation("settings of a stream");
  if (frame.Has(kAck)) return absl::OkStatus();
  if (payload.size() % 6 != 0) return Violation("settings that are cut short");
  MutexLock lock(mutex_);
  for (; !payload.empty(); payload.remove_prefix(6)) {
    const auto id = static_cast<Setting>(ReadU32(payload.data()) >> 16);
    const uint32_t value = ReadU32(payload.data() + 2);
    switch (id) {
      case Setting::kMaxConcurrentStreams:
        peer_max_calls_ = value;
        break;
      case Setting::kInitialWindowSize: {
        if (value > kMaxWindow) return Violation("a window over the limit");
        const int64_t more = static_cast<int64_t>(value) - peer_call_window_;
        peer_call_window_ = value;
        for (auto& [stream, call] : calls_) {
          call->send_window += more;
          if (call->send_window > kMaxWindow) return Violation("a window over the limit");
          PumpLocked(*call);
        }
        break;
      }
      case Setting::kMaxFrameSize:
        if (value < kDefaultFrameBytes || value > 0xffffff) return Violation("a wrong frame size");
        peer_frame_bytes_ = value;
        break;
      default:
        break;  // What is sent here does not depend on it.
    }
  }
  settings_seen_ = true;
  AppendSettingsAck(out_);
  StartWaitingLocked();
  if (out_.size() > kMaxQueuedBytes) return Violation("questions, and does not hear the answers");
  return absl::OkStatus();
}

absl::Status Connection::OnPing(const FrameHeader& frame, std::string_view payload) {
  if (frame.stream != 0 || payload.size() != 8) return Violation("a malformed ping");
  if (frame.Has(kAck)) return absl::OkStatus();
  MutexLock lock(mutex_);
  AppendPingAck(out_, payload);
  if (out_.size() > kMaxQueuedBytes) return Violation("questions, and does not hear the answers");
  return absl::OkStatus();
}

absl::Status Connection::OnWindowUpdate(const FrameHeader& frame, std::string_view payload) {
  if (payload.size() != 4) return Violation("a malformed window update");
  const int64_t more = ReadU32(payload.data()) & kMaxStreamId;
  if (more == 0) return Violation("a window update of nothing");
  if (frame.stream == 0) {
    MutexLock lock(mutex_);
    send_window_ += more;
    if (send_window_ > kMaxWindow) return Violation("a window over the limit");
    for (auto& [stream, call] : calls_) PumpLocked(*call);
    return absl::OkStatus();
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<Call> call, FindCall(frame.stream));
  if (call == nullptr) return absl::OkStatus();
  MutexLock lock(mutex_);
  call->send_window += more;
  if (call->send_window > kMaxWindow) return Violation("a window over the limit");
  if (!call->over) PumpLocked(*call);
  return absl::OkStatus();
}

absl::Status Connection::OnReset(const FrameHeader& frame, std::string_view payload,
                                 Waiters& ready) {
  if (payload.size() != 4) return Violation("a malformed reset");
  PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<Call> call, FindCall(frame.stream));
  if (call == nullptr) return absl::OkStatus();
  const uint32_t code = ReadU32(payload.data());
  {
    MutexLock lock(mutex_);
    call->ended_by_peer = call->half_closed = true;
  }
  End(call, FromReset(code), code == static_cast<uint32_t>(ErrorCode::kRefusedStream), ready);
  return absl::OkStatus();
}

absl::Status Connection::OnGoAway(const FrameHeader& frame, std::string_view payload,
                                  Waiters& ready) {
  if (frame.stream != 0 || payload.size() < 8) return Violation("a malformed farewell");
  const uint32_t last = ReadU32(payload.data()) & kMaxStreamId;
  const absl::Status why = Farewell(ReadU32(payload.data() + 4), payload.substr(8));
  std::vector<std::shared_ptr<Call>> dropped;
  {
    MutexLock lock(mutex_);
    leaving_ = why;
    dropped = unstarted_;
    for (const auto& [stream, call] : calls_) {
      if (stream > last) dropped.push_back(call);
    }
  }
  for (const std::shared_ptr<Call>& call : dropped) {
    End(call, why, /*unanswered=*/true, ready);
  }
  return absl::OkStatus();
}

// Null: a call that is over.
absl::StatusOr<std::shared_ptr<Connection::Call>> Connection::FindCall(uint32_t stream) {
  MutexLock lock(mutex_);
  if (stream % 2 == 0 || stream >= next_id_) return Violation("a frame of no call");
  const auto found = calls_.find(stream);
  return found == calls_.end() ? nullptr : found->second;
}

void Connection::PeerHasEnded(Call& call) {
  MutexLock lock(mutex_);
  call.ended_by_peer = true;
}

void Connection::End(const std::shared_ptr<Call>& call, const absl::Status& status, bool unanswered,
                     Waiters& ready) {
  {
    MutexLock lock(mutex_);
    if (call->over) return;
    CloseLocked(*call);
  }
  call->sink->OnEnd(status, unanswered, ready);
}

void Connection::FailAll(const absl::Status& status, Waiters& ready) {
  std::vector<std::shared_ptr<Call>> ended;
  {
    MutexLock lock(mutex_);
    if (failed_) return;
    if (absl::IsInternal(status)) {
      out_.clear();
      AppendGoAway(out_, ErrorCode::kProtocolError,
                   {status.message().data(), status.message().size()});
    }
  }
  Flush();
  socket_->Shutdown();
  {
    MutexLock lock(mutex_);
    failed_ = status;
    ended = std::exchange(unstarted_, {});
    gathering_.clear();
    for (const auto& [stream, call] : calls_) ended.push_back(call);
    calls_.clear();
    for (const std::shared_ptr<Call>& call : ended) call->over = true;
  }
  for (const std::shared_ptr<Call>& call : ended) {
    call->sink->OnEnd(status, /*unanswered=*/!call->headers.has_value(), ready);
  }
}

}  // namespace peerchunk::http2
