#include "peer/http2/connection.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "peer/http2/connection_call.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::http2 {
namespace {

// Holds any frame but DATA whole.
constexpr size_t kStagedBytes = 128 * kKiB;
// What is left of a message is read straight into it when it is as much.
constexpr size_t kDirectBytes = 4096;
// Behind a long message: enough for the headers and the head of the next one.
constexpr size_t kBulkStagedBytes = 4096;
// The connection as a whole is held back only by what its calls may be sent.
constexpr uint32_t kConnectionWindow = kMaxWindow;

}  // namespace

Connection::Connection(std::unique_ptr<Socket> socket, std::string authority, bool tls,
                       Clock& clock)
    : socket_(std::move(socket)),
      authority_(std::move(authority)),
      tls_(tls),
      clock_(clock),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      pool_(std::make_shared<BufferPool>()),
      staged_(kStagedBytes) {
  MutexLock lock(mutex_);
  out_ = kPreface;
  AppendSettings(out_, {{Setting::kEnablePush, 0},
                        {Setting::kInitialWindowSize, kCallWindow},
                        {Setting::kMaxFrameSize, kFrameBytes},
                        {Setting::kMaxHeaderListSize, kMaxHeaderBlockBytes}});
  AppendWindowUpdate(out_, 0, kConnectionWindow - kDefaultWindow);
}

Connection::~Connection() = default;

// --- Sending.

std::shared_ptr<Connection::Call> Connection::Start(const Request& request,
                                                    std::shared_ptr<CallSink> sink) {
  auto call = std::make_shared<Call>(std::move(sink),
                                     EncodeRequestHead({.path = request.method,
                                                        .authority = authority_,
                                                        .tls = tls_,
                                                        .timeout = request.timeout}),
                                     request, pool_);
  std::optional<absl::Status> refused;
  {
    MutexLock lock(mutex_);
    if (failed_) {
      refused = *failed_;
    } else if (leaving_) {
      refused = *leaving_;
    } else {
      if (!request.more_follow) QueueLocked(*call, request.message);
      if (calls_.size() < peer_max_calls_) {
        StartLocked(call);
      } else {
        unstarted_.push_back(call);
      }
    }
    if (refused) call->over = true;
  }
  if (refused) {
    Waiters nobody;  // The caller, who does not wait yet.
    call->sink->OnEnd(*refused, /*unanswered=*/true, nobody);
  } else {
    FlushUnlessDriven();
  }
  return call;
}

void Connection::StartLocked(const std::shared_ptr<Call>& call) {
  call->id = next_id_;
  next_id_ += 2;
  if (next_id_ > kMaxStreamId) {
    leaving_ = absl::UnavailableError("the connection has had as many calls as it can have");
  }
  call->send_window = peer_call_window_;
  calls_.emplace(call->id, call);
  AppendFrameHeader(out_, FrameType::kHeaders, kEndHeaders, call->id, call->head.size());
  out_ += std::exchange(call->head, {});
  PumpLocked(*call);
}

// A message goes with a flag for compression, which there is none of, and its length before it.
void Connection::QueueLocked(Call& call, std::string_view message) {
  call.to_send.push_back(0);
  AppendU32(call.to_send, static_cast<uint32_t>(message.size()));
  call.to_send.append(message);
}

// Makes frames of what the windows let out.
void Connection::PumpLocked(Call& call) {
  while (!call.to_send.empty() && call.send_window > 0 && send_window_ > 0) {
    const auto size =
        static_cast<size_t>(std::min<int64_t>({static_cast<int64_t>(call.to_send.size()),
                                               peer_frame_bytes_, call.send_window, send_window_}));
    const bool end = !call.more_follow && size == call.to_send.size();
    AppendFrameHeader(out_, FrameType::kData, end ? kEndStream : 0, call.id, size);
    out_.append(call.to_send, 0, size);
    call.to_send.erase(0, size);
    call.send_window -= static_cast<int64_t>(size);
    send_window_ -= static_cast<int64_t>(size);
    call.half_closed = end;
  }
}

void Connection::SendGathered(const std::shared_ptr<Call>& call) {
  {
    MutexLock lock(mutex_);
    if (call->over) return;
    if (!std::exchange(call->gathering, true)) gathering_.push_back(call);
    gather_at_ = absl::InfinitePast();
    if (driver_ != nullptr && driver_works_) return;
  }
  Flush();
}

// Takes what has gathered, of calls that have nothing left of what they sent before.
void Connection::GatherLocked() {
  if (gathering_.empty()) return;
  const absl::Time now = clock_.Now();
  absl::Time again = absl::InfiniteFuture();
  std::erase_if(gathering_, [&](const std::shared_ptr<Call>& call) PEERCHUNK_REQUIRES(mutex_) {
    // What lets it go on, the call's start or more window, puts out frames, and so asks again.
    if (!call->over && (call->id == 0 || !call->to_send.empty())) return false;
    while (!call->over) {
      const CallSink::Gathered gathered = call->sink->Gather(now);
      if (!gathered.message.empty()) {
        QueueLocked(*call, gathered.message);
        PumpLocked(*call);
      }
      if (gathered.ask_again == absl::InfiniteFuture()) break;
      if (gathered.ask_again > now || !call->to_send.empty()) {
        again = std::min(again, gathered.ask_again);
        return false;
      }
    }
    call->gathering = false;
    return true;
  });
  gather_at_ = again;
}

void Connection::Taken(Call& call, size_t message_bytes) {
  {
    MutexLock lock(mutex_);
    if (call.over) return;
    call.taken += message_bytes + 5;
    if (call.taken < kCallWindow / 2) return;
    AppendWindowUpdate(out_, call.id, static_cast<uint32_t>(call.taken));
    call.receive_window += static_cast<int64_t>(std::exchange(call.taken, 0));
  }
  FlushUnlessDriven();
}

void Connection::Leave(Call& call) {
  bool closed = false;
  {
    MutexLock lock(mutex_);
    if (!call.over) {
      CloseLocked(call);
      closed = true;
    }
    while (filling_ == &call) filled_.Wait(mutex_);
  }
  if (closed) FlushUnlessDriven();
}

// The call is over on this side: nothing of it is waited for any more.
void Connection::CloseLocked(Call& call) {
  call.over = true;
  if (call.id == 0) {
    std::erase_if(unstarted_, [&](const auto& other) { return other.get() == &call; });
    return;
  }
  if (!call.half_closed || !call.ended_by_peer) {
    AppendRstStream(out_, call.id, ErrorCode::kCancel);
  }
  calls_.erase(call.id);
  StartWaitingLocked();
}

// Those that wait for the peer to take more calls at once.
void Connection::StartWaitingLocked() {
  while (!unstarted_.empty() && !leaving_ && calls_.size() < peer_max_calls_) {
    const std::shared_ptr<Call> next = unstarted_.front();
    unstarted_.erase(unstarted_.begin());
    StartLocked(next);
  }
}

bool Connection::MayWriteLocked() const { return can_write_ && !writing_ && !blocked_ && !failed_; }

bool Connection::MayFlushLocked() const {
  if (!MayWriteLocked()) return false;
  return !out_.empty() || (!gathering_.empty() &&
                           (gather_at_ == absl::InfinitePast() || clock_.Now() >= gather_at_));
}

void Connection::FlushUnlessDriven() {
  {
    MutexLock lock(mutex_);
    if (driver_ != nullptr && driver_works_) return;
  }
  Flush();
}

void Connection::Flush() {
  std::string frames;
  while (true) {
    {
      MutexLock lock(mutex_);
      if (MayFlushLocked()) GatherLocked();
      if (!MayWriteLocked()) return;
      if (out_.empty()) {
        if (gathering_.empty() || gather_at_ >= driver_sleeps_until_) return;
        driver_sleeps_until_ = gather_at_;
      }
      frames.clear();
      frames.swap(out_);
      writing_ = !frames.empty();
    }
    if (frames.empty()) return WakeDriver();  // It has to send the rest when the time has come.
    size_t sent = 0;
    bool ended = false;
    while (sent < frames.size()) {
      const auto step = socket_->Write(std::string_view(frames).substr(sent));
      ended = !step.ok();
      if (ended || *step == 0) break;
      sent += *step;
    }
    // Whoever reads finds out.
    if (ended) socket_->Shutdown();
    bool wake = false;
    {
      MutexLock lock(mutex_);
      writing_ = false;
      if (ended) return;
      if (sent < frames.size()) {
        out_.insert(0, frames, sent);
        blocked_ = true;
        wake = driver_ != nullptr;
      }
    }
    if (wake) WakeDriver();  // It has to watch for the socket's taking more.
  }
}

void Connection::WakeDriver() {
  const uint64_t one = 1;
  // It fails only when so many wakes are pending that one more changes nothing.
  [[maybe_unused]] const ssize_t written = write(wake_.fd(), &one, sizeof(one));
}

// --- Waiting and driving.

absl::Status Connection::Wait(const std::shared_ptr<Waiter>& waiter, absl::Time until) {
  absl::Status result;
  std::shared_ptr<Waiter> next_driver;
  {
    MutexLock lock(mutex_);
    while (true) {
      if (waiter->cancelled_) {
        result = absl::CancelledError("the read was cancelled");
        break;
      }
      if (std::exchange(waiter->ready_, false)) break;
      if (until != absl::InfiniteFuture() && clock_.Now() >= until) {
        result = absl::DeadlineExceededError("no message from the peer in time");
        break;
      }
      if (driver_ == nullptr) {
        Drive(waiter, until);
      } else {
        waiter->in_line_ = true;
        waiting_.push_back(waiter);
        lock.Unlock();
        // Ready: whoever drives has taken it out of the line, and will see to the next driver.
        const Sleepers::Woken woken = sleepers_.Sleep(waiter->sleeper_, until, clock_);
        if (woken == Sleepers::Woken::kReady) return absl::OkStatus();
        lock.Lock();
        if (!std::exchange(waiter->in_line_, false)) {  // It was being woken as ready.
          sleepers_.Take(waiter->sleeper_);
          break;
        }
        std::erase(waiting_, waiter);
      }
    }
    if (driver_ == nullptr) next_driver = NextDriverLocked();
  }
  if (next_driver != nullptr) Wake(*next_driver, Sleepers::Woken::kToLook);
  return result;
}

void Connection::Wake(Waiter& waiter, Sleepers::Woken why) {
  sleepers_.Wake(sleepers_.Mark(waiter.sleeper_, why));
}

void Connection::Tend() {
  std::shared_ptr<Waiter> next_driver;
  {
    MutexLock lock(mutex_);
    if (driver_ != nullptr || failed_) return;
    Drive(std::make_shared<Waiter>(), absl::InfinitePast());
    next_driver = NextDriverLocked();
  }
  if (next_driver != nullptr) Wake(*next_driver, Sleepers::Woken::kToLook);
}

std::shared_ptr<Waiter> Connection::NextDriverLocked() const {
  for (const std::shared_ptr<Waiter>& waiter : waiting_) {
    if (!waiter->cancelled_) return waiter;
  }
  return nullptr;
}

void Connection::Cancel(Waiter& waiter) {
  bool sleeps = false;
  bool drives = false;
  {
    MutexLock lock(mutex_);
    waiter.cancelled_ = true;
    sleeps = waiter.in_line_;
    drives = driver_ == &waiter;
  }
  if (sleeps) Wake(waiter, Sleepers::Woken::kToLook);
  if (drives) WakeDriver();
}

// One turn, on behalf of all.
void Connection::Drive(const std::shared_ptr<Waiter>& waiter, absl::Time until) {
  driver_ = waiter.get();
  driver_works_ = true;
  mutex_.Unlock();
  Waiters ready;
  const absl::Status turn = Turn(until, ready);
  if (!turn.ok()) FailAll(turn, ready);
  mutex_.Lock();
  Sleepers::Mask in_line = 0;
  for (const std::shared_ptr<Waiter>& other : ready) {
    if (std::exchange(other->in_line_, false)) {
      std::erase(waiting_, other);
      in_line |= sleepers_.Mark(other->sleeper_, Sleepers::Woken::kReady);
    } else {
      other->ready_ = true;
    }
  }
  if (in_line != 0) {
    mutex_.Unlock();
    sleepers_.Wake(in_line);
    // What the first of them ask next goes in one message.
    mutex_.Lock();
  }
  driver_ = nullptr;
  driver_works_ = false;
  if (!MayFlushLocked()) return;
  mutex_.Unlock();
  Flush();
  mutex_.Lock();
}

absl::Status Connection::Turn(absl::Time until, Waiters& ready) {
  if (!opened_) {
    PEERCHUNK_ASSIGN_OR_RETURN(opened_, socket_->Open());
    if (!opened_) {
      WaitForSocket(until, socket_->OpenEvents());
      return absl::OkStatus();
    }
    MutexLock lock(mutex_);
    can_write_ = true;
  }
  return Receive(until, ready);
}

// False when there is nothing to do but look at the time.
bool Connection::WaitForSocket(absl::Time until, short events) {
  {
    // From here on, who has something to send sends it.
    MutexLock lock(mutex_);
    driver_works_ = false;
    if (blocked_) events |= POLLOUT;
  }
  Flush();
  {
    MutexLock lock(mutex_);
    // Where nothing can be sent, what changes that wakes the driver: the dial's end, the socket's
    // taking more, or who is writing when done.
    if (MayWriteLocked() && !gathering_.empty()) until = std::min(until, gather_at_);
    driver_sleeps_until_ = until;
  }
  timespec limit{};
  const timespec* timeout = nullptr;
  if (until != absl::InfiniteFuture()) {
    limit =
        absl::ToTimespec(std::clamp(until - clock_.Now(), absl::ZeroDuration(), absl::Hours(1)));
    timeout = &limit;
  }
  pollfd fds[] = {{.fd = socket_->fd(), .events = events, .revents = 0},
                  {.fd = wake_.fd(), .events = POLLIN, .revents = 0}};
  const int count = ppoll(fds, 2, timeout, nullptr);
  MutexLock lock(mutex_);
  driver_works_ = true;
  driver_sleeps_until_ = absl::InfinitePast();
  if (count <= 0) return false;
  if (fds[1].revents != 0) {
    uint64_t wakes = 0;
    [[maybe_unused]] const ssize_t got = read(wake_.fd(), &wakes, sizeof(wakes));
  }
  if ((fds[0].revents & POLLOUT) != 0) blocked_ = false;
  return fds[0].revents != 0;
}

// One read of the socket: what belongs to a message that is under way straight into it, the rest to
// be parsed. False: nothing is there.
absl::StatusOr<bool> Connection::ReadSome(Waiters& ready) {
  if (staged_begin_ == staged_end_) {
    staged_begin_ = staged_end_ = 0;
  } else if (staged_begin_ > 0) {
    std::memmove(staged_.data(), staged_.data() + staged_begin_, staged_end_ - staged_begin_);
    staged_end_ -= staged_begin_;
    staged_begin_ = 0;
  }
  absl::Span<char> staging =
      absl::MakeSpan(staged_.data() + staged_end_, staged_.size() - staged_end_);
  // What is staged is copied once more: little of a long message should be.
  if (bulk_ && staged_end_ == 0) staging = staging.first(kBulkStagedBytes);
  absl::Span<char> direct;
  if (data_ && data_->left > 0 && data_->call != nullptr && staged_end_ == 0 && BeginFill()) {
    direct = data_->call->assembler.Target();
    direct = direct.first(std::min<size_t>(direct.size(), data_->left));
    if (direct.size() < kDirectBytes && !bulk_) {
      direct = {};
      EndFill();
    }
  }
  const absl::StatusOr<size_t> read =
      direct.empty() ? socket_->Read(staging, {}) : socket_->Read(direct, staging);
  if (!direct.empty() && (!read.ok() || *read == 0)) EndFill();
  PEERCHUNK_RETURN_IF_ERROR(read);
  const size_t got = *read;
  expect_more_ = got > 0 && got >= (direct.empty() ? staging.size() : direct.size());
  const size_t in_place = std::min(got, direct.size());
  staged_end_ += got - in_place;
  if (in_place > 0) PEERCHUNK_RETURN_IF_ERROR(TakeData(in_place, ready));
  return got > 0;
}

absl::Status Connection::Receive(absl::Time until, Waiters& ready) {
  bool got = false;
  if (expect_more_ || socket_->HasBuffered()) {
    PEERCHUNK_ASSIGN_OR_RETURN(got, ReadSome(ready));
  }
  if (!got) {
    AdaptivePolling::Wait wait(polling_, clock_, until);
    // For long messages sleeping costs less: there is much of them when it ends.
    if (!bulk_ && wait.LooksAgain()) {
      PEERCHUNK_ASSIGN_OR_RETURN(got, Poll(wait, ready));
    }
    if (!got && WaitForSocket(until, POLLIN)) {
      PEERCHUNK_ASSIGN_OR_RETURN(got, ReadSome(ready));
    }
  }
  if (!got) return absl::OkStatus();
  PEERCHUNK_RETURN_IF_ERROR(Parse(ready));
  MutexLock lock(mutex_);
  // The peer waits for this end to close.
  if (!leaving_ || !calls_.empty() || !unstarted_.empty()) return absl::OkStatus();
  return *leaving_;
}

// Asks again and again: an answer that comes soon is taken without the cost of falling asleep. Lets
// whoever wants the core have it meanwhile, like those just woken here, and the peer on this
// machine; and sends what has gathered when its time has come.
absl::StatusOr<bool> Connection::Poll(AdaptivePolling::Wait& wait, Waiters& ready) {
  {
    MutexLock lock(mutex_);
    driver_works_ = false;
  }
  bool got = false;
  do {
    Flush();
    PEERCHUNK_ASSIGN_OR_RETURN(got, ReadSome(ready));
  } while (!got && wait.LooksAgain());
  MutexLock lock(mutex_);
  driver_works_ = true;
  return got;
}

bool Connection::IsOpen() const {
  MutexLock lock(mutex_);
  return settings_seen_ && !failed_;
}

bool Connection::IsUsable() const {
  MutexLock lock(mutex_);
  return !failed_ && !leaving_;
}

bool Connection::HasNoCallsBut(size_t count) const {
  MutexLock lock(mutex_);
  return calls_.size() + unstarted_.size() <= count;
}

}  // namespace peerchunk::http2
