#include "peer/grpc/read_stream.h"

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include <grpcpp/alarm.h>

#include "peer/grpc/grpc_peer_stream.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// How long the driver polls before it blocks, and how quick the answers must have been for that.
constexpr absl::Duration kPolling = absl::Microseconds(100);
constexpr absl::Duration kQuick = absl::Microseconds(200);

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
    : channel_(std::move(channel)), clock_(clock), stub_(channel_), to_send_(clock) {
  context_.set_initial_metadata_corked(true);  // The metadata goes with the first request.
  call_ = stub_.PrepareCall(&context_, kReadBuildFileMethod, &queue_);
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

std::shared_ptr<SharedReads::Read> ReadStream::Ask(const PeerRequest& request,
                                                   absl::Time deadline) {
  auto read = std::make_shared<OneRead>();
  {
    MutexLock lock(mutex_);
    read->id = next_id_++;
    if (end_) {
      read->end = *end_;
      return read;
    }
    reads_.emplace(read->id, read);
    to_send_.Add(read->id, request, deadline);
  }
  Flush();
  return read;
}

// Sends what has gathered, unless a message is on its way: its end flushes again.
void ReadStream::Flush() {
  std::string request;
  {
    MutexLock lock(mutex_);
    if (writing_ || finishing_ || to_send_.empty()) return;
    request = to_send_.Take().bytes;
    writing_ = true;
  }
  call_->Write(ToBuffer(request), reinterpret_cast<void*>(Tag::kWrite));
}

absl::StatusOr<std::optional<ReadPart>> ReadStream::Await(Read& which, absl::Time wait_until) {
  OneRead& read = Of(which);
  absl::StatusOr<std::optional<ReadPart>> part;
  std::shared_ptr<OneRead> next_leader;
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
bool ReadStream::ReadyLocked(OneRead& read, absl::Time wait_until,
                             absl::StatusOr<std::optional<ReadPart>>& part) {
  if (read.cancelled) {
    part = absl::CancelledError("the read was cancelled");
  } else if (!read.parts.empty()) {
    part = read.parts.Take();
  } else if (read.end) {
    part = *read.end;
  } else if (clock_.Now() >= wait_until) {
    part = std::nullopt;
  } else {
    return false;
  }
  return true;
}

// One event, on behalf of all readers; the lock is not held while waiting.
void ReadStream::Drive(OneRead& read, absl::Time wait_until) {
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
  const std::vector<std::shared_ptr<OneRead>> woken = ApplyLocked(std::move(event));
  leader_ = nullptr;
  if (woken.empty() && !written) return;
  mutex_.Unlock();  // Or those woken would wait again at once, for the lock.
  if (written) Flush();
  for (const std::shared_ptr<OneRead>& other : woken) other->changed.NotifyAll();
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
      Event event{.kind = Event::Kind::kParts, .parts = decoder_.Decode(BytesOf(incoming_))};
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
std::vector<std::shared_ptr<ReadStream::OneRead>> ReadStream::ApplyLocked(Event event) {
  std::vector<std::shared_ptr<OneRead>> woken;
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
  answered_ = true;
  for (ReadPart& part : *event.parts) {
    const auto found = reads_.find(part.id);
    if (found == reads_.end()) continue;  // Nobody waits for it any more.
    OneRead& read = *found->second;
    if (read.end) continue;
    if (const absl::Status added = read.parts.Add(std::move(part)); !added.ok()) read.end = added;
    if (read.waiting) woken.push_back(found->second);
  }
  return woken;
}

std::vector<std::shared_ptr<ReadStream::OneRead>> ReadStream::EndLocked(
    const absl::Status& status) {
  std::vector<std::shared_ptr<OneRead>> woken;
  if (end_) return woken;
  end_ = status;
  for (auto& [id, read] : reads_) {
    if (!read->end) read->end = status;
    woken.push_back(read);
  }
  return woken;
}

// Somebody who waits and whose answer is not there yet.
std::shared_ptr<ReadStream::OneRead> ReadStream::NextLeaderLocked() const {
  for (const auto& [id, read] : reads_) {
    if (read->waiting && read->parts.empty() && !read->end && !read->cancelled) return read;
  }
  return nullptr;
}

bool ReadStream::HasAnswered() const {
  MutexLock lock(mutex_);
  return answered_;
}

void ReadStream::Cancel(Read& which) {
  OneRead& read = Of(which);
  {
    MutexLock lock(mutex_);
    read.cancelled = true;
    read.changed.NotifyAll();
    if (leader_ != &read) return;
  }
  auto* const wake = new Wake;  // TakeEvent deletes it.
  wake->alarm.Set(&queue_, std::chrono::system_clock::now(), wake);
}

void ReadStream::Leave(Read& which, bool answered) {
  {
    MutexLock lock(mutex_);
    const OneRead& read = Of(which);
    if (reads_.erase(read.id) == 0 || end_) return;
    to_send_.Remove(read.id, answered);
    if (to_send_.empty()) return;
  }
  Flush();
}

}  // namespace peerchunk
