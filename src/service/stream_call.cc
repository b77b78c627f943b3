#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "peerchunk/base/status.h"
#include "service/call.h"
#include "service/extent_source.h"
#include "service/framing.h"
#include "service/memory_wait.h"
#include "service/served_range.h"
#include "service/stall_watch.h"

namespace peerchunk {
namespace {

// Read ahead of the message under way: the next piece is there when that is written.
constexpr size_t kExtentsAhead = 2;

// One GetBuildFile. Owned by its operations and tasks; gone with the last of them.
//
//   queue: OnRequest -> reader: Begin -> Drive
//   Drive: Write, and meanwhile the next pieces, a window's worth of them each turn to send
//   (without
//          one: pacer -> reader: OnTurn): on this thread as long as they are in memory, else
//          budget -> reader (or relay): Produce -> Drive
//   queue: OnWritten -> Drive; of a bulk transfer, when no other event is there (EventLoop)
//
// `mutex_` guards what they share; one thread at a time produces (`producing_`), and at most one
// Write is under way. Finish is started by FinishLocked alone, once.
class StreamCall final : public std::enable_shared_from_this<StreamCall> {
 public:
  StreamCall(ServiceContext& context, grpc::ServerCompletionQueue* queue)
      : context_(context),
        queue_(queue),
        writer_(&grpc_),
        wait_(&context.alarms),
        stall_(&context.alarms, context.options.clock, context.options.stall_timeout) {
    context_.CallBegins();
  }
  ~StreamCall() {
    context_.pacer.GiveBack(read_options_.priority, paid_bytes_);
    context_.CallEnds();
  }

  void Await() {
    done_operation_ = new MemberOperation<StreamCall>(shared_from_this(), &StreamCall::OnDone);
    grpc_.AsyncNotifyWhenDone(done_operation_);
    context_.service.RequestGetBuildFile(&grpc_, &request_, &writer_, queue_, queue_,
                                         Operation(&StreamCall::OnRequest));
  }

 private:
  void* Operation(void (StreamCall::*then)(bool), Priority priority = Priority::kDemand) {
    return static_cast<CallOperation*>(
        new MemberOperation<StreamCall>(shared_from_this(), then, priority));
  }
  std::function<void()> Weakly(void (StreamCall::*then)()) {
    return [weak = weak_from_this(), then] {
      if (const std::shared_ptr<StreamCall> self = weak.lock()) ((*self).*then)();
    };
  }

  void OnRequest(bool ok) {
    if (!ok) {  // The server is shutting down; gRPC never reports the end of a call that never
                // began.
      delete std::exchange(done_operation_, nullptr);
      return;
    }
    AwaitStreamCall(context_, queue_);
    peer_ = PeerHost(grpc_.peer());
    auto admission = context_.active.Admit(peer_);
    if (!admission.ok()) return Finish(admission.status());
    admission_.emplace(*std::move(admission));
    account_ = context_.budget->For(peer_);
    on_cancel_.emplace(context_.cancelling.get_token(), Weakly(&StreamCall::TryCancel));
    context_.readers.Run(peer_, Priority::kDemand, [self = shared_from_this()] { self->Begin(); });
  }

  // Runs when the call is over, for whatever reason.
  void OnDone(bool) {
    const bool cancelled = grpc_.IsCancelled();
    if (cancelled) cancel_.request_stop();
    MutexLock lock(mutex_);
    done_operation_ = nullptr;
    stall_.Stop();
    if (cancelled && LeaveLineLocked()) FinishLocked(absl::CancelledError("the reader went away"));
  }

  void Begin() {
    const absl::Status status = Resolve();
    {
      MutexLock lock(mutex_);
      producing_ = false;
      if (!status.ok()) return FinishLocked(status);
      all_read_ = !source_ || source_->done();
    }
    Drive();
  }

  absl::Status Resolve() {
    v1::GetBuildFileRequest request;
    std::vector<grpc::Slice> slices;
    std::string bytes;
    if (!request_.Dump(&slices).ok()) return absl::InvalidArgumentError("unreadable request");
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    request_.Clear();
    if (!request.ParseFromString(bytes)) return absl::InvalidArgumentError("malformed request");
    PEERCHUNK_ASSIGN_OR_RETURN(served_, ResolveRange(*context_.templates, request));
    end_status_ = served_.head.status;
    if (served_.head.availability != Availability::kAvailable) return absl::OkStatus();
    read_options_ = served_.Options();
    read_options_.cancellation = cancel_.get_token();
    call_deadline_ = DeadlineOf(*context_.options.clock, grpc_);
    source_.emplace(std::move(served_.file), served_.range, served_.relays_left == 0,
                    context_.buffers);
    return absl::OkStatus();
  }

  // Goes on with whatever can be done now: the next message, the next pieces, the end.
  void Drive() {
    while (true) {
      {
        MutexLock lock(mutex_);
        ProceedLocked();
        if (finished_ || pending_finish_ || producing_ || all_read_) return;
        if (ready_.size() >= kExtentsAhead) return;
        producing_ = true;
      }
      if (!TakeTurn()) return AwaitTurn();
      if (!ProduceAtOnce()) return AskForMemory();
    }
  }

  // True: what comes next, as far as the next window, may be sent.
  bool TakeTurn() {
    if (paid_bytes_ > 0) return true;
    const uint64_t bytes = source_->NextWindowBytes();
    if (!context_.pacer.TrySpend(read_options_.priority, bytes)) return false;
    paid_bytes_ = bytes;
    return true;
  }

  // OnTurn goes on when there is a turn. No memory is held meanwhile but for what is being written.
  void AwaitTurn() {
    const Priority lane = read_options_.priority;
    const uint64_t bytes = source_->NextWindowBytes();
    MutexLock lock(mutex_);
    turn_ = context_.pacer.Wait(peer_, lane, bytes, [self = shared_from_this(), lane, bytes] {
      self->context_.readers.Run(self->peer_, lane, [self, bytes] { self->OnTurn(bytes); });
    });
    turn_alarm_ =
        context_.alarms.At(context_.options.clock->Now() + context_.options.longest_prefetch_wait,
                           [weak = weak_from_this(), turn = turn_] {
                             if (const std::shared_ptr<StreamCall> self = weak.lock())
                               self->OnTurnTooLate(turn);
                           });
    if (cancel_.stop_requested() && LeaveLineLocked()) {
      FinishLocked(absl::CancelledError("the reader went away"));
    }
  }

  void OnTurn(uint64_t bytes) {
    {
      MutexLock lock(mutex_);
      TurnWaitEndedLocked();
    }
    paid_bytes_ = bytes;
    if (cancel_.stop_requested()) return Finish(absl::CancelledError("the reader went away"));
    if (!ProduceAtOnce()) return AskForMemory();
    Drive();
  }

  void TurnWaitEndedLocked() PEERCHUNK_REQUIRES(mutex_) {
    turn_ = 0;
    if (turn_alarm_ != 0) context_.alarms.Cancel(std::exchange(turn_alarm_, 0));
  }

  bool LeaveTurnLocked() PEERCHUNK_REQUIRES(mutex_) {
    if (turn_ == 0 || !context_.pacer.Forget(peer_, read_options_.priority, turn_)) return false;
    TurnWaitEndedLocked();
    return true;
  }

  void OnTurnTooLate(SendPacer::Ticket turn) {
    MutexLock lock(mutex_);
    if (turn_ == turn && LeaveLineLocked()) FinishLocked(NoTurnLeft());
  }

  // What takes no waiting, of what is paid for.
  bool ProduceAtOnce() {
    const uint64_t from = source_->next_offset();
    std::deque<OutgoingExtent> extents;
    auto lease = account_->TryAcquire(read_options_.priority, source_->NextPieceBytes());
    if (!lease || !source_->TryRead(*lease, read_options_, extents)) return false;
    TakeIn(from, extents);
    return true;
  }

  // Produce goes on when there is memory for the next window.
  void AskForMemory() {
    const Priority lane = read_options_.priority;
    const auto then = [self = shared_from_this(), lane](ByteBudget::Lease lease) {
      // std::function wants copies; the one task that runs takes the lease out.
      auto shared = std::make_shared<ByteBudget::Lease>(std::move(lease));
      self->context_.readers.Run(self->peer_, lane,
                                 [self, shared] { self->Produce(std::move(*shared)); });
    };
    const uint64_t bytes = source_->NextWindowBytes();
    if (auto lease = account_->TryAcquire(lane, bytes)) return then(*std::move(lease));
    // Once it has begun a stream is as patient as its reader.
    absl::Time until = absl::InfiniteFuture();
    if (source_->next_offset() == served_.range.offset) {
      until = context_.options.clock->Now() + LongestWait(context_, lane);
    }
    MutexLock lock(mutex_);
    wait_.Begin(*account_, lane, bytes, then, until,
                [weak = weak_from_this()](ByteBudget::Ticket ticket) {
                  if (const auto self = weak.lock()) self->OnWaitedTooLong(ticket);
                });
    if (cancel_.stop_requested() && LeaveLineLocked()) {
      FinishLocked(absl::CancelledError("the reader went away"));
    }
  }

  // True: it waited, and neither Produce nor OnTurn will run.
  bool LeaveLineLocked() PEERCHUNK_REQUIRES(mutex_) {
    if (!wait_.Leave() && !LeaveTurnLocked()) return false;
    producing_ = false;
    return true;
  }

  void OnWaitedTooLong(ByteBudget::Ticket ticket) {
    MutexLock lock(mutex_);
    if (!wait_.LeaveIf(ticket)) return;
    producing_ = false;
    FinishLocked(NoMemoryLeft());
  }

  void Produce(ByteBudget::Lease lease) {
    {
      MutexLock lock(mutex_);
      wait_.Ended();
    }
    if (cancel_.stop_requested()) return Finish(absl::CancelledError("the reader went away"));
    ReadOptions options = read_options_;
    if (source_->NextIsHere()) {
      options.relays_left = 0;
      return ProduceWindow(std::move(lease), options);
    }
    auto admission = context_.relaying.Admit(peer_);
    if (!admission.ok()) {
      return Finish(absl::ResourceExhaustedError("this node relays as much as it may"));
    }
    auto shared = std::make_shared<std::pair<ByteBudget::Lease, ActiveCalls::Admission>>(
        std::move(lease), *std::move(admission));
    context_.relays.Run(options.priority, [self = shared_from_this(), shared, options] {
      self->ProduceWindow(std::move(shared->first), options);
    });
  }

  void ProduceWindow(ByteBudget::Lease lease, ReadOptions options) {
    std::deque<OutgoingExtent> extents;
    // A limit for this window, not for the stream: a long one may go on as long as it gets
    // somewhere.
    options.deadline =
        std::min(call_deadline_, context_.options.clock->Now() + context_.options.relay_timeout);
    const uint64_t from = source_->next_offset();
    const absl::Status status = source_->Read(std::move(lease), options, extents);
    if (!status.ok()) return Finish(status);
    TakeIn(from, extents);
    Drive();
  }

  // The producer hands over what it has, from this offset on, and is none any more.
  void TakeIn(uint64_t from, std::deque<OutgoingExtent>& extents) {
    uint64_t unsent = source_->next_offset() - from;
    paid_bytes_ -= std::min(paid_bytes_, unsent);
    for (const OutgoingExtent& extent : extents) unsent -= extent.data ? extent.data->size() : 0;
    context_.pacer.GiveBack(read_options_.priority, unsent);  // Zeros.
    // The last message repeats the state as it is by then.
    const bool done = source_->done();
    const BuildStatus status = done ? StatusNow(*context_.templates, served_) : served_.head.status;
    MutexLock lock(mutex_);
    if (done) end_status_ = status;
    for (OutgoingExtent& extent : extents) ready_.push_back(std::move(extent));
    producing_ = false;
    all_read_ = done;
  }

  void ProceedLocked() PEERCHUNK_REQUIRES(mutex_) {
    if (finished_ || writing_ || (ready_.empty() && !all_read_)) return;
    if (pending_finish_) return;
    if (last_sent_) return FinishLocked(absl::OkStatus());

    std::optional<FileHead> head;
    if (!std::exchange(head_sent_, true)) head = served_.head;
    std::optional<OutgoingExtent> extent;
    if (!ready_.empty()) {
      extent = std::move(ready_.front());
      ready_.pop_front();
    }
    std::optional<OutgoingEnd> end;
    if (all_read_ && ready_.empty()) {
      end = OutgoingEnd{end_status_, source_ ? source_->next_offset() : 0,
                        source_ && source_->stopped_short()};
      last_sent_ = true;
    }
    const grpc::ByteBuffer message = FrameMessage(head, extent, end).ToByteBuffer();
    context_.served_bytes.Add(message.Length());
    writing_ = true;
    stall_.Began(Weakly(&StreamCall::OnStallAlarm));
    writer_.Write(message, Operation(&StreamCall::OnWritten, read_options_.priority));
  }

  void OnWritten(bool ok) {
    {
      MutexLock lock(mutex_);
      writing_ = false;
      stall_.Ended();
      if (!ok) return FinishLocked(absl::CancelledError("the reader went away"));
      if (pending_finish_) return FinishLocked(*std::exchange(pending_finish_, std::nullopt));
    }
    Drive();
  }

  void OnStallAlarm() {
    MutexLock lock(mutex_);
    if (!stall_.Stalled(Weakly(&StreamCall::OnStallAlarm))) return;
    context_.stalled_calls.Add();
    grpc_.TryCancel();
  }

  void TryCancel() { grpc_.TryCancel(); }

  void Finish(const absl::Status& status) {
    MutexLock lock(mutex_);
    producing_ = false;
    FinishLocked(status);
  }

  // The one way to the call's end.
  void FinishLocked(const absl::Status& status) PEERCHUNK_REQUIRES(mutex_) {
    if (finished_) return;
    if (writing_) {  // gRPC allows one operation of this kind at a time; OnWritten goes on.
      if (!pending_finish_) pending_finish_ = status;
      return;
    }
    finished_ = true;
    ready_.clear();
    if (!status.ok()) context_.NoteFailure(status, served_.id, grpc_.peer());
    writer_.Finish(FinalStatus(context_, status, grpc_), Operation(&StreamCall::OnFinished));
  }

  void OnFinished(bool) {}

  ServiceContext& context_;
  grpc::ServerCompletionQueue* const queue_;
  grpc::ServerContext grpc_;
  grpc::ByteBuffer request_;
  grpc::ServerAsyncWriter<grpc::ByteBuffer> writer_;
  CallOperation* done_operation_ = nullptr;  // Owned by the queue once the call has begun.
  std::stop_source cancel_;
  std::string peer_;
  std::optional<ActiveCalls::Admission> admission_;
  std::shared_ptr<ByteBudget::Account> account_;

  // Written by Begin and by whoever produces, of which one runs at a time.
  ServedRange served_;
  ReadOptions read_options_;
  absl::Time call_deadline_;
  std::optional<ExtentSource> source_;
  uint64_t paid_bytes_ = 0;  // Of a turn, and not produced yet.

  Mutex mutex_;
  std::deque<OutgoingExtent> ready_ PEERCHUNK_GUARDED_BY(mutex_);
  BuildStatus end_status_;  // Written by who produces, before `all_read_`.
  MemoryWait wait_ PEERCHUNK_GUARDED_BY(mutex_);
  SendPacer::Ticket turn_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  Alarms::Id turn_alarm_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  StallWatch stall_ PEERCHUNK_GUARDED_BY(mutex_);
  bool producing_ PEERCHUNK_GUARDED_BY(mutex_) = true;  // Begin counts as the first.
  bool all_read_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool writing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool head_sent_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool last_sent_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool finished_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> pending_finish_ PEERCHUNK_GUARDED_BY(mutex_);
  // Last, so that it is gone before what it calls.
  std::optional<std::stop_callback<std::function<void()>>> on_cancel_;
};

}  // namespace

void AwaitStreamCall(ServiceContext& context, grpc::ServerCompletionQueue* queue) {
  if (context.stopping.load()) return;
  std::make_shared<StreamCall>(context, queue)->Await();
}

}  // namespace peerchunk
