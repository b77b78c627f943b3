#include <algorithm>
#include <deque>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "peerchunk/base/status.h"
#include "service/call.h"
#include "service/extent_source.h"
#include "service/framing.h"
#include "service/served_range.h"

namespace peerchunk {
namespace {

// Read ahead of the message under way: the next window is there when that is written.
constexpr size_t kExtentsAhead = 2;

// One GetBuildFile. Owned by its operations and tasks; gone with the last of them.
//
//   queue: OnRequest -> reader: Begin -> budget -> reader: Produce -> Write -> queue: OnWritten ->
//   ...
//
// While one message is being written the next windows are read. `mutex_` guards what both sides
// touch; at most one Produce runs at a time, and at most one Write. Finish is started by
// FinishLocked alone, once.
class StreamCall final : public std::enable_shared_from_this<StreamCall> {
 public:
  StreamCall(ServiceContext& context, grpc::ServerCompletionQueue* queue)
      : context_(context), queue_(queue), writer_(&grpc_) {
    context_.CallBegins();
  }
  ~StreamCall() { context_.CallEnds(); }

  void Await() {
    done_operation_ = new MemberOperation<StreamCall>(shared_from_this(), &StreamCall::OnDone);
    grpc_.AsyncNotifyWhenDone(done_operation_);
    context_.service.RequestGetBuildFile(&grpc_, &request_, &writer_, queue_, queue_,
                                         Operation(&StreamCall::OnRequest));
  }

 private:
  void* Operation(void (StreamCall::*then)(bool)) {
    return static_cast<CallOperation*>(new MemberOperation<StreamCall>(shared_from_this(), then));
  }

  void OnRequest(bool ok) {
    if (!ok) {  // The server is shutting down; gRPC never reports the end of a call that never
                // began.
      delete std::exchange(done_operation_, nullptr);
      return;
    }
    AwaitStreamCall(context_, queue_);
    auto admission = context_.active.Admit(PeerHost(grpc_.peer()));
    if (!admission.ok()) return Finish(admission.status());
    admission_.emplace(*std::move(admission));
    // Requests beyond what the budget can turn over soon are shed at once rather than left to time
    // out.
    if (context_.budget->waiting() > context_.options.max_streams / 2) {
      return Finish(
          absl::ResourceExhaustedError("this node has no memory left for another stream"));
    }
    context_.readers.Run(Priority::kDemand, [self = shared_from_this()] { self->Begin(); });
  }

  // Runs when the call is over, for whatever reason.
  void OnDone(bool) {
    done_operation_ = nullptr;
    if (grpc_.IsCancelled()) cancel_.request_stop();
  }

  void Begin() {
    const absl::Status status = Resolve();
    MutexLock lock(mutex_);
    producing_ = false;
    if (!status.ok()) return FinishLocked(status);
    all_read_ = !source_ || source_->done();
    ProceedLocked();
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
    source_.emplace(std::move(served_.file), served_.range, served_.relays_left == 0);
    return absl::OkStatus();
  }

  void Produce(ByteBudget::Lease lease) {
    if (cancel_.stop_requested()) return Finish(absl::CancelledError("the reader went away"));
    std::deque<OutgoingExtent> extents;
    // A limit for this window, not for the stream: a long one may go on as long as it gets
    // somewhere.
    read_options_.deadline =
        std::min(call_deadline_, context_.options.clock->Now() + context_.options.relay_timeout);
    const absl::Status status = source_->Read(std::move(lease), read_options_, extents);
    if (!status.ok()) return Finish(status);
    // The last message repeats the state as it is by then.
    if (source_->done()) end_status_ = StatusNow(*context_.templates, served_);
    MutexLock lock(mutex_);
    for (OutgoingExtent& extent : extents) ready_.push_back(std::move(extent));
    producing_ = false;
    all_read_ = source_->done();
    ProceedLocked();
  }

  // Starts whatever can be started now: the next window, the next message, the end.
  void ProceedLocked() PEERCHUNK_REQUIRES(mutex_) {
    if (finished_) return;
    if (!producing_ && !all_read_ && ready_.size() < kExtentsAhead) StartProducingLocked();
    if (writing_ || (ready_.empty() && !all_read_)) return;
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
    writer_.Write(message, Operation(&StreamCall::OnWritten));
    if (!producing_ && !all_read_ && ready_.size() < kExtentsAhead) StartProducingLocked();
  }

  // Asks for the memory of the next window; it is read once that is there.
  void StartProducingLocked() PEERCHUNK_REQUIRES(mutex_) {
    producing_ = true;
    context_.budget->Acquire(
        source_->NextWindowBytes(), [self = shared_from_this()](ByteBudget::Lease lease) {
          // std::function wants copies; the one task that runs takes the lease out.
          auto shared = std::make_shared<ByteBudget::Lease>(std::move(lease));
          self->context_.readers.Run(self->read_options_.priority,
                                     [self, shared] { self->Produce(std::move(*shared)); });
        });
  }

  void OnWritten(bool ok) {
    MutexLock lock(mutex_);
    writing_ = false;
    if (!ok) return FinishLocked(absl::CancelledError("the reader went away"));
    if (pending_finish_) return FinishLocked(*std::exchange(pending_finish_, std::nullopt));
    ProceedLocked();
  }

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
  std::optional<ActiveCalls::Admission> admission_;

  // Written by Begin and Produce, of which one runs at a time. What Produce writes is read under
  // the lock only when it is not under way (producing_ is false).
  ServedRange served_;
  BuildStatus end_status_;
  ReadOptions read_options_;
  absl::Time call_deadline_;
  std::optional<ExtentSource> source_;

  Mutex mutex_;
  std::deque<OutgoingExtent> ready_ PEERCHUNK_GUARDED_BY(mutex_);
  bool producing_ PEERCHUNK_GUARDED_BY(mutex_) = true;  // Begin counts as the first.
  bool all_read_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool writing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool head_sent_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool last_sent_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool finished_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> pending_finish_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace

void AwaitStreamCall(ServiceContext& context, grpc::ServerCompletionQueue* queue) {
  if (context.stopping.load()) return;
  std::make_shared<StreamCall>(context, queue)->Await();
}

}  // namespace peerchunk
