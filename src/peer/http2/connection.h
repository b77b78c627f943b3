#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "base/adaptive_polling.h"
#include "base/sleepers.h"
#include "peer/http2/frame.h"
#include "peer/http2/header_block.h"
#include "peer/http2/message_assembler.h"
#include "peer/http2/socket.h"
#include "peer/wire/message_bytes.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk::http2 {

// Somebody who waits for what comes over a connection.
class Waiter {
 private:
  friend class Connection;

  Sleepers::One sleeper_;
  // The rest belongs to the connection's lock.
  bool in_line_ = false;  // Sleeps, or is about to.
  bool ready_ = false;
  bool cancelled_ = false;
};

using Waiters = std::vector<std::shared_ptr<Waiter>>;

class CallSink;

// One connection to a gRPC server, and the calls on it. It has no thread: of those who wait for
// their calls, one drives the connection and hands the others what is theirs; when it has its own,
// another takes over. Who owns it calls Tend now and then, for the time when nobody waits. What is
// sent is sent by whoever has it, or by the driver when that is at work anyway, so that much of it
// goes in one message. Data is read from the socket into the memory that its message is handed out
// in, which may be where the call's owner wants it.
//
// A peer can make it fail, but not use more memory than the windows of its calls, and not wait
// past a deadline; what was said to be taken is bounded by who took it. Thread-safe; kept alive by
// its calls' owners.
class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  // A call under way.
  class Call;

  struct Request {
    std::string_view method;  // "/package.Service/Method"
    absl::Duration timeout = absl::InfiniteDuration();
    std::string message;
    bool more_follow = false;  // SendGathered is called for this call; no `message` then.
    // The sink is asked where the tails of messages go, given heads of so many bytes; 0: it is not.
    size_t head_bytes = 0;
  };

  // What the peer may send of one call before any of it is taken.
  static constexpr uint32_t kCallWindow = 8 * 1024 * 1024;
  // The longest DATA frame: one read of the socket takes a whole message.
  static constexpr uint32_t kFrameBytes = 1024 * 1024 + 64 * 1024;

  Connection(std::unique_ptr<Socket> socket, std::string authority, bool tls, Clock& clock);
  ~Connection();

  // Nothing is said about a call that could not be begun but through `sink`.
  std::shared_ptr<Call> Start(const Request& request, std::shared_ptr<CallSink> sink);
  // There is more to send in a call begun with `more_follow`: its sink is asked for it when it can
  // go out, which is before this returns or, when the driver is at work, when that has done.
  void SendGathered(const std::shared_ptr<Call>& call);
  // `message_bytes` of a message of this call were taken: the peer may send as much again.
  void Taken(Call& call, size_t message_bytes);
  // The call's owner wants no more: cancels what is not over. When this returns, nothing is written
  // any more to where the sink has placed it; for that it waits, for one read that does not block.
  void Leave(Call& call);

  // Waits until `waiter` is ready, which it then no longer is, and drives the connection meanwhile
  // if nobody else does. It may return OK once too often. DeadlineExceeded: not by `until`;
  // Cancelled: Cancel was called.
  absl::Status Wait(const std::shared_ptr<Waiter>& waiter, absl::Time until);
  // Ends the waits of `waiter`, from any thread.
  void Cancel(Waiter& waiter);

  // Answers what the peer has asked meanwhile, and hears of its end, when nobody drives. Never
  // waits.
  void Tend();

  // The peer has answered the dial: it speaks HTTP/2.
  bool IsOpen() const;
  // New calls may be started.
  bool IsUsable() const;
  // At most `count` calls are under way.
  bool HasNoCallsBut(size_t count) const;

 private:
  // The frame whose payload is being read.
  struct DataFrame {
    uint32_t stream = 0;
    std::shared_ptr<Call> call;  // Null: nobody wants it.
    uint32_t left = 0;
    uint32_t padding = 0;  // Behind that.
    bool ends_stream = false;
  };
  struct HeaderFrame {
    uint32_t stream = 0;
    bool ends_stream = false;
    std::string block;
  };

  // Sending.
  void StartLocked(const std::shared_ptr<Call>& call) PEERCHUNK_REQUIRES(mutex_);
  void QueueLocked(Call& call, std::string_view message) PEERCHUNK_REQUIRES(mutex_);
  void PumpLocked(Call& call) PEERCHUNK_REQUIRES(mutex_);
  void CloseLocked(Call& call) PEERCHUNK_REQUIRES(mutex_);
  void StartWaitingLocked() PEERCHUNK_REQUIRES(mutex_);
  void GatherLocked() PEERCHUNK_REQUIRES(mutex_);
  bool MayWriteLocked() const PEERCHUNK_REQUIRES(mutex_);
  bool MayFlushLocked() const PEERCHUNK_REQUIRES(mutex_);
  void Flush() PEERCHUNK_EXCLUDES(mutex_);
  void FlushUnlessDriven() PEERCHUNK_EXCLUDES(mutex_);
  void WakeDriver();

  // Waiting.
  void Wake(Waiter& waiter, Sleepers::Woken why) PEERCHUNK_EXCLUDES(mutex_);
  std::shared_ptr<Waiter> NextDriverLocked() const PEERCHUNK_REQUIRES(mutex_);

  // Driving; without the lock, by one thread at a time.
  void Drive(const std::shared_ptr<Waiter>& waiter, absl::Time until) PEERCHUNK_REQUIRES(mutex_);
  absl::Status Turn(absl::Time until, Waiters& ready);
  bool WaitForSocket(absl::Time until, short events);
  absl::StatusOr<bool> ReadSome(Waiters& ready);
  absl::StatusOr<bool> Poll(AdaptivePolling::Wait& wait, Waiters& ready);
  absl::Status Receive(absl::Time until, Waiters& ready);
  absl::Status Parse(Waiters& ready);
  absl::Status BeginData(const FrameHeader& frame, uint32_t padding);
  bool BeginFill();
  void EndFill();
  absl::Status TakeData(size_t bytes, Waiters& ready);
  absl::Status EndData(Waiters& ready);
  absl::Status OnFrame(const FrameHeader& frame, std::string_view payload, Waiters& ready);
  absl::Status OnHeaders(const FrameHeader& frame, std::string_view payload, Waiters& ready);
  absl::Status OnHeaderBlock(Waiters& ready);
  absl::Status OnSettings(const FrameHeader& frame, std::string_view payload);
  absl::Status OnWindowUpdate(const FrameHeader& frame, std::string_view payload);
  absl::Status OnReset(const FrameHeader& frame, std::string_view payload, Waiters& ready);
  absl::Status OnGoAway(const FrameHeader& frame, std::string_view payload, Waiters& ready);
  absl::Status OnPing(const FrameHeader& frame, std::string_view payload);
  absl::StatusOr<std::shared_ptr<Call>> FindCall(uint32_t stream);
  void PeerHasEnded(Call& call);
  void End(const std::shared_ptr<Call>& call, const absl::Status& status, bool unanswered,
           Waiters& ready);
  void FailAll(const absl::Status& status, Waiters& ready);

  const std::unique_ptr<Socket> socket_;
  const std::string authority_;
  const bool tls_;
  Clock& clock_;
  const File wake_;  // An eventfd.
  const std::shared_ptr<BufferPool> pool_;
  // Those in line: none of them queues for the lock when they are woken together.
  Sleepers sleepers_;

  // The driver's.
  bool opened_ = false;
  bool expect_more_ = false;
  bool bulk_ = false;  // The last message was a long one; so the next may be.
  AdaptivePolling polling_;
  std::vector<char> staged_;  // [begin, end) is not parsed yet.
  size_t staged_begin_ = 0;
  size_t staged_end_ = 0;
  std::optional<DataFrame> data_;
  std::optional<HeaderFrame> headers_;  // Until END_HEADERS.
  HeaderDecoder decoder_;
  uint64_t connection_received_ = 0;  // Not yet given back to the connection's window.

  mutable Mutex mutex_;
  std::string out_ PEERCHUNK_GUARDED_BY(mutex_);  // Frames to be sent.
  std::vector<std::shared_ptr<Call>> gathering_ PEERCHUNK_GUARDED_BY(mutex_);
  bool writing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool blocked_ PEERCHUNK_GUARDED_BY(mutex_) = false;  // The socket takes no more now.
  absl::Time gather_at_ PEERCHUNK_GUARDED_BY(mutex_) = absl::InfinitePast();
  bool can_write_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  Waiter* driver_ PEERCHUNK_GUARDED_BY(mutex_) = nullptr;
  bool driver_works_ PEERCHUNK_GUARDED_BY(mutex_) = false;  // It flushes before it waits.
  // When it would look up by itself; the past when it does not sleep.
  absl::Time driver_sleeps_until_ PEERCHUNK_GUARDED_BY(mutex_) = absl::InfinitePast();
  // Whose memory the driver writes to without the lock, where that is not the call's own.
  Call* filling_ PEERCHUNK_GUARDED_BY(mutex_) = nullptr;
  CondVar filled_;
  Waiters waiting_ PEERCHUNK_GUARDED_BY(mutex_);  // In the order in which they came.
  std::map<uint32_t, std::shared_ptr<Call>> calls_ PEERCHUNK_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Call>> unstarted_ PEERCHUNK_GUARDED_BY(mutex_);
  uint32_t next_id_ PEERCHUNK_GUARDED_BY(mutex_) = 1;
  bool settings_seen_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> leaving_ PEERCHUNK_GUARDED_BY(mutex_);  // Why no call may be begun.
  std::optional<absl::Status> failed_ PEERCHUNK_GUARDED_BY(mutex_);
  int64_t send_window_ PEERCHUNK_GUARDED_BY(mutex_) = kDefaultWindow;
  int64_t peer_call_window_ PEERCHUNK_GUARDED_BY(mutex_) = kDefaultWindow;
  uint32_t peer_frame_bytes_ PEERCHUNK_GUARDED_BY(mutex_) = kDefaultFrameBytes;
  uint32_t peer_max_calls_ PEERCHUNK_GUARDED_BY(mutex_) = UINT32_MAX;
};

// Who takes what comes of one call. Called with none of the connection's locks held, but for
// Gather, one call at a time, and by the thread that drives the connection, but for Gather and for
// the end of a call that could not be begun; adds to `ready` whom it concerns.
class CallSink {
 public:
  virtual ~CallSink() = default;
  // Also before Start has returned `call`.
  virtual void OnMessage(const std::shared_ptr<Connection::Call>& call, MessageBytes message,
                         Waiters& ready) = 0;
  // Of a call begun with `head_bytes`; see MessageAssembler::PlaceTail. Takes no lock.
  virtual absl::Span<char> PlaceTail(std::string_view /*head*/, size_t /*message_bytes*/) {
    return {};
  }
  // The last of it. `unanswered`: nothing came back and nothing will, because the connection
  // went or is about to; the call may be made again over another one. A call that could not be
  // begun ends on the thread of Start, before that returns.
  virtual void OnEnd(const absl::Status& status, bool unanswered, Waiters& ready) = 0;
  struct Gathered {
    std::string message;                            // Empty: nothing now.
    absl::Time ask_again = absl::InfiniteFuture();  // Then there is more.
  };
  // What more there is to send, as one message. Called under the connection's lock, after
  // SendGathered, by whoever sends.
  virtual Gathered Gather(absl::Time /*now*/) { return {}; }
};

}  // namespace peerchunk::http2
