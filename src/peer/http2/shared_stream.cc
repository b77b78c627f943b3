#include "peer/http2/shared_stream.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "peerchunk/base/status.h"

namespace peerchunk::http2 {
namespace {

// So many messages may be unanswered before others gather, and for so long. Two: the peer has the
// next one when it is done with one. The time is what a read waits here at most, whatever the peer
// does.
constexpr size_t kMessagesAhead = 2;
// No message has more than half of the reads that are under way, so that the peer works on one half
// while the other is taken here; of so few it may have all.
constexpr size_t kFew = 4;
constexpr absl::Duration kLongestGathering = absl::Microseconds(100);

}  // namespace

class SharedStream::Sink final : public CallSink {
 public:
  explicit Sink(std::weak_ptr<SharedStream> stream) : stream_(std::move(stream)) {}

  void OnMessage(const std::shared_ptr<Connection::Call>& call, MessageBytes message,
                 Waiters& ready) override {
    if (const auto stream = stream_.lock()) stream->OnMessage(call, std::move(message), ready);
  }
  void OnEnd(const absl::Status& status, bool, Waiters& ready) override {
    if (const auto stream = stream_.lock()) stream->OnEnd(status, ready);
  }
  Gathered Gather(absl::Time now) override {
    const auto stream = stream_.lock();
    return stream == nullptr ? Gathered() : stream->Gather(now);
  }

 private:
  const std::weak_ptr<SharedStream> stream_;
};

std::shared_ptr<SharedStream> SharedStream::Make(std::shared_ptr<Connection> connection,
                                                 Clock& clock) {
  return std::shared_ptr<SharedStream>(new SharedStream(std::move(connection), clock));
}

void SharedStream::Begin() {
  std::call_once(begun_, [this] {
    call_ = connection_->Start({.method = kReadBuildFileMethod, .more_follow = true},
                               std::make_shared<Sink>(weak_from_this()));
  });
}

SharedStream::~SharedStream() {
  if (call_ != nullptr) connection_->Leave(*call_);
}

bool SharedStream::IsAlive() const {
  MutexLock lock(mutex_);
  return !end_;
}

bool SharedStream::IsIdle() const {
  MutexLock lock(mutex_);
  return reads_.empty();
}

bool SharedStream::HasAnswered() const {
  MutexLock lock(mutex_);
  return answered_;
}

std::shared_ptr<SharedReads::Read> SharedStream::Ask(const PeerRequest& request,
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
  connection_->SendGathered(call_);
  return read;
}

absl::StatusOr<std::optional<ReadPart>> SharedStream::Await(Read& which, absl::Time wait_until) {
  OneRead& read = Of(which);
  while (true) {
    {
      MutexLock lock(mutex_);
      if (!read.parts.empty()) return read.parts.Take();
      if (read.end) return *read.end;
    }
    const absl::Status waited = connection_->Wait(read.waiter, wait_until);
    if (absl::IsDeadlineExceeded(waited)) return std::nullopt;
    PEERCHUNK_RETURN_IF_ERROR(waited);
  }
}

void SharedStream::Cancel(Read& read) { connection_->Cancel(*Of(read).waiter); }

void SharedStream::Leave(Read& read, bool answered) {
  {
    MutexLock lock(mutex_);
    const uint64_t id = Of(read).id;
    if (reads_.erase(id) == 0 || end_) return;
    const size_t before = to_send_.size();
    to_send_.Remove(id, answered);
    if (to_send_.size() == before) return;
    if (!answered) hurry_ = true;
  }
  connection_->SendGathered(call_);
}

CallSink::Gathered SharedStream::Gather(absl::Time now) {
  MutexLock lock(mutex_);
  if (to_send_.empty()) return {};
  const bool busy = unanswered_.size() >= kMessagesAhead;
  const absl::Time at_last = last_sent_ + kLongestGathering;
  if (busy && now < at_last && !hurry_) return {.message = {}, .ask_again = at_last};
  const size_t most =
      busy || hurry_ ? to_send_.size() : std::max(kFew, (to_send_.under_way() + 1) / 2);
  ReadRequests::Message message = to_send_.Take(most);
  if (message.last_read) unanswered_.push_back(*message.last_read);
  // More of them change nothing.
  if (unanswered_.size() > kMessagesAhead) TakeFirstUnanswered();
  last_sent_ = now;
  hurry_ = false;
  return {.message = std::move(message.bytes),
          .ask_again = to_send_.empty() ? absl::InfiniteFuture() : now};
}

void SharedStream::OnMessage(const std::shared_ptr<Connection::Call>& call, MessageBytes message,
                             Waiters& ready) {
  connection_->Taken(*call, message.size());
  auto parts = decoder_.Decode(std::move(message));
  if (!parts.ok()) {
    connection_->Leave(*call);
    return OnEnd(parts.status(), ready);
  }
  bool gathered = false;
  {
    MutexLock lock(mutex_);
    answered_ = true;
    for (ReadPart& part : *parts) TakePart(std::move(part), ready);
    gathered = !to_send_.empty();
  }
  if (gathered) connection_->SendGathered(call);
}

void SharedStream::TakeFirstUnanswered() {
  answered_until_ = unanswered_.front();
  unanswered_.pop_front();
}

void SharedStream::TakePart(ReadPart part, Waiters& ready) {
  // The peer has begun with the message that asks for it.
  while (!unanswered_.empty() && part.id > answered_until_) TakeFirstUnanswered();
  const auto found = reads_.find(part.id);
  if (found == reads_.end()) return;  // Nobody waits for it any more.
  OneRead& read = *found->second;
  if (read.end) return;
  if (const absl::Status added = read.parts.Add(std::move(part)); !added.ok()) read.end = added;
  ready.push_back(read.waiter);
}

void SharedStream::OnEnd(const absl::Status& status, Waiters& ready) {
  // A peer that is going ends the stream as cancelled; nobody here has cancelled anything.
  const bool ended_by_peer = status.ok() || absl::IsCancelled(status);
  const absl::Status end =
      ended_by_peer ? absl::UnavailableError("the peer ended the stream of reads") : status;
  MutexLock lock(mutex_);
  if (end_) return;
  end_ = end;
  for (auto& [id, read] : reads_) {
    if (!read->end) read->end = end;
    ready.push_back(read->waiter);
  }
}

}  // namespace peerchunk::http2
