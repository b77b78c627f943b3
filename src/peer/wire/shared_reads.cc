#include "peer/wire/shared_reads.h"

#include <algorithm>
#include <utility>

namespace peerchunk {

SharedReadPeerStream::SharedReadPeerStream(Ways ways, const PeerRequest& request,
                                           PeerCallOptions options, Clock& clock)
    : ways_(std::move(ways)), request_(request), options_(std::move(options)), clock_(clock) {
  Ask();
  if (options_.cancellation.stop_possible()) {
    on_cancel_.emplace(options_.cancellation, [this] { Cancel(); });
  }
}

SharedReadPeerStream::~SharedReadPeerStream() {
  on_cancel_.reset();
  MutexLock lock(mutex_);
  const auto calls = std::move(calls_);
  const auto read = std::move(read_);
  lock.Unlock();
  calls->Leave(*read, answered_);
}

void SharedReadPeerStream::Ask() {
  std::shared_ptr<SharedReads> calls = ways_.shared();
  std::shared_ptr<SharedReads::Read> read = calls->Ask(request_, options_.deadline);
  MutexLock lock(mutex_);
  calls_.swap(calls);
  read_.swap(read);
}

void SharedReadPeerStream::Cancel() {
  std::shared_ptr<SharedReads> calls;
  std::shared_ptr<SharedReads::Read> read;
  PeerStream* alone = nullptr;
  {
    MutexLock lock(mutex_);
    cancelled_ = true;
    calls = calls_;
    read = read_;
    alone = alone_.get();
  }
  if (calls != nullptr) calls->Cancel(*read);
  if (alone != nullptr) alone->Cancel();
}

bool SharedReadPeerStream::IsAlive() const {
  return alone_ != nullptr ? alone_->IsAlive() : !end_.has_value();
}

bool SharedReadPeerStream::GoesOn(const absl::Status& why) {
  if (begun_ || absl::IsCancelled(why)) return false;
  if (absl::IsUnimplemented(why)) {
    std::unique_ptr<PeerStream> alone = ways_.alone();
    bool cancelled = false;
    {
      MutexLock lock(mutex_);
      alone_ = std::move(alone);
      cancelled = cancelled_;
    }
    if (cancelled) alone_->Cancel();
    return true;
  }
  std::shared_ptr<SharedReads> calls;
  {
    MutexLock lock(mutex_);
    if (cancelled_) return false;
    calls = calls_;
  }
  if (!absl::IsUnavailable(why) || !calls->HasAnswered() || std::exchange(asked_again_, true)) {
    return false;
  }
  Ask();
  return true;
}

absl::StatusOr<std::optional<PeerMessage>> SharedReadPeerStream::Next(absl::Time wait_until) {
  current_.reset();
  while (true) {
    if (alone_ != nullptr) return alone_->Next(wait_until);
    if (end_) {
      if (end_->ok()) return std::nullopt;
      return *end_;
    }
    std::shared_ptr<SharedReads> calls;
    std::shared_ptr<SharedReads::Read> read;
    {
      MutexLock lock(mutex_);
      if (cancelled_) end_ = absl::CancelledError("the read was cancelled");
      calls = calls_;
      read = read_;
    }
    if (end_) continue;
    auto part = calls->Await(*read, std::min(wait_until, options_.deadline));
    if (!part.ok()) {
      if (!GoesOn(part.status())) end_ = part.status();
      continue;
    }
    if (!part->has_value()) {
      const absl::Status late = absl::DeadlineExceededError("no message from the peer in time");
      if (clock_.Now() >= options_.deadline) end_ = late;
      return late;
    }
    begun_ = true;
    ReadPart& got = **part;
    if (!got.error.ok()) {
      answered_ = true;
      end_ = got.error;
      continue;
    }
    auto decoded = MessageDecoder::Decode(std::move(got.message));
    if (!decoded.ok()) {
      end_ = decoded.status();
      continue;
    }
    current_.emplace(*std::move(decoded));
    if (current_->message().last) {
      answered_ = true;
      end_ = absl::OkStatus();
    }
    return current_->message();
  }
}

}  // namespace peerchunk
