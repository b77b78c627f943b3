#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "peer/http2/connection.h"
#include "peer/wire/read_parts.h"
#include "peer/wire/shared_reads.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk::http2 {

// A ReadBuildFile call on a connection. What several readers ask while the connection's driver is
// at work, or while the peer is busy with what they have asked before, goes in few messages: each
// costs the peer far more than one more read in it. A peer cannot make it hold more than
// ReadPartDecoder and, of each read, WaitingParts let it.
class SharedStream final : public SharedReads, public std::enable_shared_from_this<SharedStream> {
 public:
  static std::shared_ptr<SharedStream> Make(std::shared_ptr<Connection> connection, Clock& clock);
  ~SharedStream() override;

  // Begins the call, once: by whoever is first, and who comes meanwhile waits for that. To be
  // called before any read is asked.
  void Begin();

  // False once the call has ended: what is asked now would end at once.
  bool IsAlive() const;
  // Nobody waits for anything.
  bool IsIdle() const;

  std::shared_ptr<Read> Ask(const PeerRequest& request, absl::Time deadline) override;
  absl::StatusOr<std::optional<ReadPart>> Await(Read& read, absl::Time wait_until) override;
  void Cancel(Read& read) override;
  void Leave(Read& read, bool answered) override;
  bool HasAnswered() const override;

 private:
  struct OneRead final : Read {
    uint64_t id = 0;
    const std::shared_ptr<Waiter> waiter = std::make_shared<Waiter>();
    // Under the stream's lock.
    WaitingParts parts;
    std::optional<absl::Status> end;  // After the parts.
  };
  static OneRead& Of(Read& read) { return static_cast<OneRead&>(read); }

  // Takes what comes, for as long as the stream lives.
  class Sink;

  SharedStream(std::shared_ptr<Connection> connection, Clock& clock)
      : connection_(std::move(connection)), to_send_(clock) {}
  void OnMessage(const std::shared_ptr<Connection::Call>& call, MessageBytes message,
                 Waiters& ready);
  void TakePart(ReadPart part, Waiters& ready) PEERCHUNK_REQUIRES(mutex_);
  void TakeFirstUnanswered() PEERCHUNK_REQUIRES(mutex_);
  void OnEnd(const absl::Status& status, Waiters& ready);
  CallSink::Gathered Gather(absl::Time now);

  const std::shared_ptr<Connection> connection_;
  std::once_flag begun_;
  std::shared_ptr<Connection::Call> call_;  // Set by Begin; the sink may be called before that.
  ReadPartDecoder decoder_;                 // The driver's.

  mutable Mutex mutex_;
  uint64_t next_id_ PEERCHUNK_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, std::shared_ptr<OneRead>> reads_ PEERCHUNK_GUARDED_BY(mutex_);
  ReadRequests to_send_ PEERCHUNK_GUARDED_BY(mutex_);
  bool hurry_ PEERCHUNK_GUARDED_BY(mutex_) = false;  // It waits for no answer.
  // The last read of each message that none of whose reads was answered.
  std::deque<uint64_t> unanswered_ PEERCHUNK_GUARDED_BY(mutex_);
  uint64_t answered_until_ PEERCHUNK_GUARDED_BY(mutex_) = 0;  // The last one of those before.
  absl::Time last_sent_ PEERCHUNK_GUARDED_BY(mutex_);
  bool answered_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ PEERCHUNK_GUARDED_BY(mutex_);  // Set once.
};

// Where not even a dial could be begun: every read ends with why.
class NoSharedReads final : public SharedReads {
 public:
  explicit NoSharedReads(absl::Status why) : why_(std::move(why)) {}

  std::shared_ptr<Read> Ask(const PeerRequest&, absl::Time) override {
    return std::make_shared<Read>();
  }
  absl::StatusOr<std::optional<ReadPart>> Await(Read&, absl::Time) override { return why_; }
  void Cancel(Read&) override {}
  void Leave(Read&, bool) override {}
  bool HasAnswered() const override { return false; }

 private:
  const absl::Status why_;
};

}  // namespace peerchunk::http2
