#include "peer/grpc/read_stream.h"

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include <grpcpp/alarm.h>

#include "peer/grpc/grpc_peer_stream.h"
#include "peer/grpc/wire.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr char kMethod[] = "/peerchunk.v1.ChunkService/ReadBuildFile";
// How long the driver polls before it blocks, and how quick the answers must have been for that.
constexpr absl::Duration kPolling = absl::Microseconds(100);
constexpr absl::Duration kQuick = absl::Microseconds(200);

grpc::ByteBuffer Serialize(const v1::ReadBuildFileRequest& request) {
  grpc::Slice slice(request.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

bool OneCore() {
  static const bool one = std::thread::hardware_concurrency() <= 1;
  return one;
}

}  // namespace

// Wakes the driver without an event of the call.
struct ReadStream::Wake {
  grpc::Alarm alarm;
};

ReadStream::ReadStream(std::shared_ptr<grpc::Channel> channel, Clock& clock)
    : channel_(std::move(channel)), clock_(clock), stub_(channel_) {
  context_.set_initial_metadata_corked(true);  // The metadata goes with the first request.
  call_ = stub_.PrepareCall(&context_, kMethod, &queue_);
  call_->StartCall(nullptr);
  call_->Read(&incoming_, reinterpret_cast<void*>(Tag::kRead));
}

ReadStream::~ReadStream() {
  context_.TryCancel();
  bool finish = false;
  {
    MutexLock lock(mutex_);
    finish = !std::exchange(finishing_, true);
  }
  if (finish) call_->Finish(&finish_status_, reinterpret_cast<void*>(Tag::kFinish));
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
    if (reinterpret_cast<intptr_t>(tag) > static_cast<intptr_t>(Tag::kFinish)) {
      delete static_cast<Wake*>(tag);
    }
  }
}

bool ReadStream::IsAlive() const {
  MutexLock lock(mutex_);
  return !end_ && !finishing_;
}

std::shared_ptr<ReadStream::Read> ReadStream::Ask(const PeerRequest& request, absl::Time deadline) {
  auto read = std::make_shared<Read>();
  {
    MutexLock lock(mutex_);
    read->id = next_id_++;
    if (end_) {
      read->end = *end_;
      return read;
    }
    reads_.emplace(read->id, read);
    v1::FileRead* const wire = to_send_.add_reads();
    wire->set_id(read->id);
    *wire->mutable_read() = RequestToWire(request);
    if (deadline != absl::InfiniteFuture()) {
      const absl::Duration left =
          std::clamp(deadline - clock_.Now(), absl::Milliseconds(1), absl::Hours(24));
      wire->set_timeout_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(left)));
    }
  }
  Flush();
  return read;
}

// Sends what has gathered, unless a message is on its way: its end flushes again.
void ReadStream::Flush() {
  v1::ReadBuildFileRequest request;
  {
    MutexLock lock(mutex_);
    if (writing_ || finishing_) return;
    if (to_send_.reads().empty() && to_send_.cancelled().empty()) return;
    request.Swap(&to_send_);
    writing_ = true;
  }
  call_->Write(Serialize(request), reinterpret_cast<void*>(Tag::kWrite));
}

absl::StatusOr<ReadPart> ReadStream::Await(Read& read, absl::Time wait_until) {
  absl::StatusOr<ReadPart> part;
  std::shared_ptr<Read> next_leader;
  {
    MutexLock lock(mutex_);
    while (!ReadyLocked(read, wait_until, part)) {
      if (leader_ == nullptr) {
        Drive(read, wait_until);
      } else {
        read.waiting = true;
        clock_.WaitUntil(read.changed, mutex_, wait_until);
        read.waiting = false;
      }
    }
    if (leader_ == nullptr) next_leader = NextLeaderLocked();
  }
  if (next_leader != nullptr) next_leader->changed.NotifyAll();
  return part;
}

// True when `part` is what Await returns.
bool ReadStream::ReadyLocked(Read& read, absl::Time wait_until, absl::StatusOr<ReadPart>& part) {
  if (read.cancelled) {
    part = absl::CancelledError("the read was cancelled");
  } else if (!read.parts.empty()) {
    part = std::move(read.parts.front());
    read.parts.pop_front();
  } else if (read.end) {
    part = *read.end;
  } else if (clock_.Now() >= wait_until) {
    part = absl::DeadlineExceededError("no message from the peer in time");
  } else {
    return false;
  }
  return true;
}

// One event, on behalf of all readers; the lock is not held while waiting.
void ReadStream::Drive(Read& read, absl::Time wait_until) {
  leader_ = &read;
  // Polling takes a core from the others that wait here.
  const bool poll = usual_wait_ < kQuick && reads_.size() == 1 && !OneCore();
  mutex_.Unlock();
  const absl::Time begun = clock_.Now();
  Event event = TakeEvent(wait_until, poll);
  const absl::Duration waited = clock_.Now() - begun;
  const bool written = event.kind == Event::Kind::kWritten;
  mutex_.Lock();
  usual_wait_ += (waited - usual_wait_) / 8;
  const std::vector<std::shared_ptr<Read>> woken = ApplyLocked(std::move(event));
  leader_ = nullptr;
  if (woken.empty() && !written) return;
  mutex_.Unlock();  // Or those woken would wait again at once, for the lock.
  if (written) Flush();
  for (const std::shared_ptr<Read>& other : woken) other->changed.NotifyAll();
  mutex_.Lock();
}

// By the driver alone, without the lock.
ReadStream::Event ReadStream::TakeEvent(absl::Time wait_until, bool poll) {
  void* tag = nullptr;
  bool ok = false;
  bool got = false;
  if (poll) {
    const absl::Time until = std::min(wait_until, clock_.Now() + kPolling);
    // Not time_point::min(): gRPC takes a time before 1970 for the infinite future.
    constexpr std::chrono::system_clock::time_point past{};
    do {
      got = queue_.AsyncNext(&tag, &ok, past) == grpc::CompletionQueue::GOT_EVENT;
    } while (!got && clock_.Now() < until);
  }
  if (!got && queue_.AsyncNext(&tag, &ok, ToSystemTime(clock_, wait_until)) !=
                  grpc::CompletionQueue::GOT_EVENT) {
    return {};
  }
  switch (static_cast<Tag>(reinterpret_cast<intptr_t>(tag))) {
    case Tag::kWrite:  // A failed write shows as a failed read.
      return {.kind = Event::Kind::kWritten};
    case Tag::kRead: {
      if (!ok) {
        call_->Finish(&finish_status_, reinterpret_cast<void*>(Tag::kFinish));
        return {.kind = Event::Kind::kFinishing};
      }
      Event event{.kind = Event::Kind::kParts, .parts = DecodeReadParts(incoming_)};
      incoming_.Clear();
      if (!event.parts.ok()) context_.TryCancel();
      call_->Read(&incoming_, reinterpret_cast<void*>(Tag::kRead));
      return event;
    }
    case Tag::kFinish:
      return {.kind = Event::Kind::kFinished};
  }
  delete static_cast<Wake*>(tag);
  return {};
}

// Returns whom to wake.
std::vector<std::shared_ptr<ReadStream::Read>> ReadStream::ApplyLocked(Event event) {
  std::vector<std::shared_ptr<Read>> woken;
  switch (event.kind) {
    case Event::Kind::kNone:
      return woken;
    case Event::Kind::kWritten:
      writing_ = false;
      return woken;
    case Event::Kind::kFinishing:
      finishing_ = true;
      return woken;
    case Event::Kind::kFinished: {
      const absl::Status status = CallStatus(finish_status_, context_);
      if (status.ok() || absl::IsCancelled(status)) {
        return EndLocked(absl::UnavailableError("the peer ended the stream of reads"));
      }
      return EndLocked(status);
    }
    case Event::Kind::kParts:
      break;
  }
  if (!event.parts.ok()) return EndLocked(event.parts.status());
  for (ReadPart& part : *event.parts) {
    const auto found = reads_.find(part.id);
    if (found == reads_.end()) continue;  // Nobody waits for it any more.
    found->second->parts.push_back(std::move(part));
    if (found->second->waiting) woken.push_back(found->second);
  }
  return woken;
}

std::vector<std::shared_ptr<ReadStream::Read>> ReadStream::EndLocked(const absl::Status& status) {
  std::vector<std::shared_ptr<Read>> woken;
  if (end_) return woken;
  end_ = status;
  for (auto& [id, read] : reads_) {
    read->end = status;
    woken.push_back(read);
  }
  return woken;
}

// Somebody who waits and whose answer is not there yet.
std::shared_ptr<ReadStream::Read> ReadStream::NextLeaderLocked() const {
  for (const auto& [id, read] : reads_) {
    if (read->waiting && read->parts.empty() && !read->end && !read->cancelled) return read;
  }
  return nullptr;
}

void ReadStream::Cancel(Read& read) {
  {
    MutexLock lock(mutex_);
    read.cancelled = true;
    read.changed.NotifyAll();
    if (leader_ != &read) return;
  }
  auto* const wake = new Wake;  // TakeEvent deletes it.
  wake->alarm.Set(&queue_, std::chrono::system_clock::now(), wake);
}

void ReadStream::Leave(Read& read, bool answered) {
  {
    MutexLock lock(mutex_);
    if (reads_.erase(read.id) == 0 || answered || end_) return;
    to_send_.add_cancelled(read.id);
  }
  Flush();
}

SharedReadPeerStream::SharedReadPeerStream(std::shared_ptr<ReadStream> stream,
                                           std::shared_ptr<grpc::Channel> channel,
                                           const PeerRequest& request, PeerCallOptions options,
                                           Clock& clock, std::function<void()> on_unimplemented)
    : stream_(std::move(stream)),
      channel_(std::move(channel)),
      request_(request),
      options_(std::move(options)),
      clock_(clock),
      on_unimplemented_(std::move(on_unimplemented)),
      read_(stream_->Ask(request, options_.deadline)) {
  if (options_.cancellation.stop_possible()) {
    on_cancel_.emplace(options_.cancellation, [this] { stream_->Cancel(*read_); });
  }
}

SharedReadPeerStream::~SharedReadPeerStream() {
  on_cancel_.reset();
  stream_->Leave(*read_, answered_);
}

bool SharedReadPeerStream::IsAlive() const {
  return instead_ != nullptr ? instead_->IsAlive() : !end_.has_value();
}

void SharedReadPeerStream::Cancel() { stream_->Cancel(*read_); }

absl::StatusOr<std::optional<PeerMessage>> SharedReadPeerStream::Next(absl::Time wait_until) {
  if (instead_ != nullptr) return instead_->Next(wait_until);
  current_.reset();
  if (end_) {
    if (end_->ok()) return std::nullopt;
    return *end_;
  }
  auto part = stream_->Await(*read_, std::min(wait_until, options_.deadline));
  if (!part.ok()) {
    const absl::Status& why = part.status();
    if (absl::IsDeadlineExceeded(why) && clock_.Now() < options_.deadline) return why;
    if (absl::IsUnimplemented(why) && !begun_) {
      on_unimplemented_();
      instead_ = std::make_unique<GrpcPeerStream>(channel_, request_, options_, clock_);
      return instead_->Next(wait_until);
    }
    end_ = why;
    return why;
  }
  begun_ = true;
  if (!part->error.ok()) {
    answered_ = true;
    end_ = part->error;
    return *end_;
  }
  auto decoded = MessageDecoder::Decode(part->message);
  if (!decoded.ok()) {
    end_ = decoded.status();
    return *end_;
  }
  current_.emplace(*std::move(decoded));
  if (current_->message().last) {
    answered_ = true;
    end_ = absl::OkStatus();
  }
  return current_->message();
}

}  // namespace peerchunk
