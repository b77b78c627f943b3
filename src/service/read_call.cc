#include <algorithm>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/support/proto_buffer_reader.h>

#include "base/chunk_service_limits.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "service/answer_parts.h"
#include "service/answers_at_once.h"
#include "service/call.h"
#include "service/extent_source.h"
#include "service/framing.h"
#include "service/memory_wait.h"
#include "service/read_request.h"
#include "service/served_range.h"
#include "service/stall_watch.h"

namespace peerchunk {
namespace {

constexpr uint64_t kMaxReadBytes = kMiB;  // Of one read; longer ones have GetBuildFile.
// A longer message is none of a reader's: of a read 5 bytes are the least.
constexpr size_t kMostReadsParsed = 16 * kMostReadsUnderWay;

absl::Status Parse(grpc::ByteBuffer& buffer, v1::ReadBuildFileRequest& request) {
  grpc::ProtoBufferReader counted(&buffer);
  if (!counted.status().ok()) return absl::InvalidArgumentError("unreadable request");
  if (CountEntries(counted) > kMostReadsParsed) {
    return absl::InvalidArgumentError("a request of more reads than a stream may have under way");
  }
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return absl::InvalidArgumentError("unreadable request");
  if (!request.ParseFromZeroCopyStream(&reader)) {
    return absl::InvalidArgumentError("malformed request");
  }
  return absl::OkStatus();
}

// One ReadBuildFile: the demand reads of one connection. Owned by its operations and tasks; gone
// with the last of them.
//
//   queue: OnRequest -> OnRead: what is in memory is answered there and then; the rest goes through
//          reader: Begin -> budget -> reader (or relay): Produce, as in GetBuildFile
//   answers gather while a message is being written: OnWritten -> the next message
//
// `mutex_` guards what the queue's thread and the readers share; at most one Read and one Write are
// under way. Finish is started once, by FinishLocked, with neither under way.
class ReadCall final : public std::enable_shared_from_this<ReadCall> {
 public:
  ReadCall(ServiceContext& context, grpc::ServerCompletionQueue* queue)
      : context_(context),
        queue_(queue),
        stream_(&grpc_),
        stall_(&context.alarms, context.options.clock, context.options.stall_timeout) {
    context_.CallBegins();
  }
  ~ReadCall() { context_.CallEnds(); }

  void Await() {
    done_operation_ = new MemberOperation<ReadCall>(shared_from_this(), &ReadCall::OnDone);
    grpc_.AsyncNotifyWhenDone(done_operation_);
    context_.service.RequestReadBuildFile(&grpc_, &stream_, queue_, queue_,
                                          Operation(&ReadCall::OnRequest));
  }

 private:
  // A read that waits for memory, a disk or another node.
  struct SlowRead {
    SlowRead(uint64_t given_id, Alarms* alarms) : id(given_id), wait(alarms) {}

    const uint64_t id;
    ServedRange served;
    std::optional<ExtentSource> source;
    ReadOptions options;
    absl::Time deadline;
    bool head_sent = false;
    std::stop_source cancel;
    MemoryWait wait;  // Under the call's mutex.
  };

  void* Operation(void (ReadCall::*then)(bool)) {
    return static_cast<CallOperation*>(new MemberOperation<ReadCall>(shared_from_this(), then));
  }
  std::function<void()> Weakly(void (ReadCall::*then)()) {
    return [weak = weak_from_this(), then] {
      if (const std::shared_ptr<ReadCall> self = weak.lock()) ((*self).*then)();
    };
  }

  void OnRequest(bool ok) {
    if (!ok) {  // As in GetBuildFile: the server is shutting down.
      delete std::exchange(done_operation_, nullptr);
      return;
    }
    AwaitReadCall(context_, queue_);
    peer_ = PeerHost(grpc_.peer());
    auto admission = context_.active.Admit(peer_);
    if (!admission.ok()) {
      MutexLock lock(mutex_);
      return FinishLocked(admission.status());
    }
    admission_.emplace(*std::move(admission));
    account_ = context_.budget->For(peer_);
    // Not under the lock: it runs at once when the node is draining already.
    on_drain_.emplace(context_.draining.get_token(), Weakly(&ReadCall::EndWhenIdle));
    on_cancel_.emplace(context_.cancelling.get_token(), Weakly(&ReadCall::TryCancel));
    MutexLock lock(mutex_);
    ProceedLocked();
  }

  // Runs when the call is over, for whatever reason.
  void OnDone(bool) {
    done_operation_ = nullptr;
    MutexLock lock(mutex_);
    over_ = true;
    stall_.Stop();
    if (turn_ != 0) context_.pacer.Forget(peer_, Priority::kDemand, std::exchange(turn_, 0));
    std::erase_if(slow_, [this](auto& entry) PEERCHUNK_REQUIRES(mutex_) {
      SlowRead& read = *entry.second;
      read.cancel.request_stop();
      if (!read.wait.Leave()) return false;
      --under_way_;
      return true;
    });
    ProceedLocked();
  }

  void StartReadLocked() PEERCHUNK_REQUIRES(mutex_) {
    reading_ = true;
    stream_.Read(&incoming_, Operation(&ReadCall::OnRead));
  }

  void OnRead(bool ok) {
    if (!ok) {  // No more requests; or the call is over.
      MutexLock lock(mutex_);
      reading_ = false;
      requests_ended_ = true;
      return ProceedLocked();
    }
    const absl::Status parsed = Parse(incoming_, request_);
    incoming_.Clear();
    std::vector<AnswerParts> ready;
    std::vector<const v1::FileRead*> slow;
    size_t answered = 0;
    if (parsed.ok()) {
      AnswersAtOnce answers(context_.templates, account_.get(), request_);
      const int most = std::min<int>(request_.reads_size(), kMostReadsUnderWay);
      for (int i = 0; i < most; ++i) {
        if (answers.Add(request_.reads(i))) {
          ++answered;
        } else {
          slow.push_back(&request_.reads(i));
        }
      }
      ready = answers.Take();
    }
    std::vector<std::shared_ptr<SlowRead>> started;
    {
      MutexLock lock(mutex_);
      reading_ = false;
      if (!parsed.ok()) return FinishLocked(parsed);
      for (AnswerParts& parts : ready) parts_.push_back(std::move(parts));
      under_way_ += answered;
      for (const v1::FileRead* const read : slow) {
        auto entry = std::make_shared<SlowRead>(read->id(), &context_.alarms);
        ++under_way_;
        if (slow_.emplace(read->id(), entry).second) {
          started.push_back(std::move(entry));
        } else {
          FailLocked(read->id(), absl::InvalidArgumentError("two reads of one id are under way"));
          started.push_back(nullptr);
        }
      }
      for (int i = kMostReadsUnderWay; i < request_.reads_size(); ++i) {
        ++under_way_;
        FailLocked(request_.reads(i).id(),
                   absl::ResourceExhaustedError("more reads than a stream may have under way"));
      }
      for (const uint64_t id : request_.cancelled()) CancelLocked(id);
    }
    for (size_t i = 0; i < slow.size(); ++i) {
      if (started[i] == nullptr) continue;
      context_.readers.Run(peer_, Priority::kDemand,
                           [self = shared_from_this(), read = started[i], wire = *slow[i]] {
                             self->Begin(read, wire);
                           });
    }
    MutexLock lock(mutex_);
    ProceedLocked();
  }

  static absl::Status CheckLength(const v1::GetBuildFileRequest& request) {
    if (request.has_length() && request.length() <= kMaxReadBytes) return absl::OkStatus();
    return absl::InvalidArgumentError("a read names its length, at most 1 MiB");
  }

  void Begin(const std::shared_ptr<SlowRead>& read, const v1::FileRead& wire) {
    const absl::Status status = Resolve(*read, wire);
    if (!status.ok()) return Fail(*read, status);
    if (!read->source || read->source->done()) {
      std::deque<OutgoingExtent> nothing;
      return Emit(*read, nothing);
    }
    NextWindow(read);
  }

  absl::Status Resolve(SlowRead& read, const v1::FileRead& wire) {
    PEERCHUNK_RETURN_IF_ERROR(CheckLength(wire.read()));
    PEERCHUNK_ASSIGN_OR_RETURN(read.served, ResolveRange(*context_.templates, wire.read()));
    read.options = read.served.Options();
    read.options.cancellation = read.cancel.get_token();
    read.deadline = wire.timeout_ms() == 0
                        ? absl::InfiniteFuture()
                        : context_.options.clock->Now() + absl::Milliseconds(wire.timeout_ms());
    if (read.served.file != nullptr) {
      read.source.emplace(std::move(read.served.file), read.served.range,
                          read.served.relays_left == 0, context_.buffers);
    }
    return absl::OkStatus();
  }

  // Produce goes on when there is memory for the next window.
  void NextWindow(const std::shared_ptr<SlowRead>& read) {
    const Priority lane = read->options.priority;
    const auto then = [self = shared_from_this(), read, lane](ByteBudget::Lease lease) {
      // std::function wants copies; the one task that runs takes the lease out.
      auto shared = std::make_shared<ByteBudget::Lease>(std::move(lease));
      self->context_.readers.Run(self->peer_, lane,
                                 [self, read, shared] { self->Produce(read, std::move(*shared)); });
    };
    const uint64_t bytes = read->source->NextWindowBytes() + kPartBytes;
    if (auto lease = account_->TryAcquire(lane, bytes)) return then(*std::move(lease));
    absl::Time until = read->deadline;
    if (read->source->next_offset() == read->served.range.offset) {
      until = std::min(until, context_.options.clock->Now() + LongestWait(context_, lane));
    }
    MutexLock lock(mutex_);
    read->wait.Begin(
        *account_, lane, bytes, then, until,
        [weak = weak_from_this(), weak_read = std::weak_ptr(read)](ByteBudget::Ticket ticket) {
          const auto self = weak.lock();
          const auto waiting = weak_read.lock();
          if (self != nullptr && waiting != nullptr) self->OnWaitedTooLong(*waiting, ticket);
        });
    if (!read->cancel.stop_requested()) return;
    CancelLocked(read->id);  // Cancelled while it did not wait.
    ProceedLocked();
  }

  void OnWaitedTooLong(SlowRead& read, ByteBudget::Ticket ticket) {
    MutexLock lock(mutex_);
    if (!read.wait.LeaveIf(ticket)) return;
    slow_.erase(read.id);
    FailLocked(read.id, NoMemoryLeft());
    ProceedLocked();
  }

  void CancelLocked(uint64_t id) PEERCHUNK_REQUIRES(mutex_) {
    const auto found = slow_.find(id);
    if (found == slow_.end()) return;
    const std::shared_ptr<SlowRead> read = found->second;
    read->cancel.request_stop();
    if (!read->wait.Leave()) return;  // Who reads for it notices.
    slow_.erase(found);
    FailLocked(id, absl::CancelledError("cancelled"));
  }

  void Produce(const std::shared_ptr<SlowRead>& read, ByteBudget::Lease lease) {
    {
      MutexLock lock(mutex_);
      read->wait.Ended();
    }
    ReadOptions options = read->options;
    if (read->source->NextIsHere()) {
      options.relays_left = 0;
      return ProduceWindow(read, std::move(lease), options);
    }
    auto admission = context_.relaying.Admit(peer_);
    if (!admission.ok()) {
      return Fail(*read, absl::ResourceExhaustedError("this node relays as much as it may"));
    }
    auto shared = std::make_shared<std::pair<ByteBudget::Lease, ActiveCalls::Admission>>(
        std::move(lease), *std::move(admission));
    context_.relays.Run(options.priority, [self = shared_from_this(), read, shared, options] {
      self->ProduceWindow(read, std::move(shared->first), options);
    });
  }

  void ProduceWindow(const std::shared_ptr<SlowRead>& read, ByteBudget::Lease lease,
                     ReadOptions options) {
    if (read->cancel.stop_requested()) return Fail(*read, absl::CancelledError("cancelled"));
    options.deadline =
        std::min(read->deadline, context_.options.clock->Now() + context_.options.relay_timeout);
    std::deque<OutgoingExtent> extents;
    const absl::Status status = read->source->Read(std::move(lease), options, extents);
    if (!status.ok()) return Fail(*read, status);
    Emit(*read, extents);
    if (!read->source->done()) NextWindow(read);
  }

  // Queues a message for each extent, and the end when all is read.
  void Emit(SlowRead& read, std::deque<OutgoingExtent>& extents) {
    const bool done = !read.source || read.source->done();
    const BuildStatus status =
        done && read.source ? StatusNow(*context_.templates, read.served) : read.served.head.status;
    MutexLock lock(mutex_);
    do {
      std::optional<FileHead> head;
      if (!std::exchange(read.head_sent, true)) head = read.served.head;
      std::optional<OutgoingExtent> extent;
      if (!extents.empty()) {
        extent = std::move(extents.front());
        extents.pop_front();
      }
      std::optional<OutgoingEnd> end;
      if (done && extents.empty()) {
        end = OutgoingEnd{status, read.source ? read.source->next_offset() : 0,
                          read.source && read.source->stopped_short()};
      }
      AnswerParts parts;
      parts.Add(FramePart(read.id, FrameMessage(head, extent, end)));
      parts.ends = end ? 1 : 0;
      parts_.push_back(std::move(parts));
    } while (!extents.empty());
    if (done) slow_.erase(read.id);
    ProceedLocked();
  }

  void Fail(const SlowRead& read, const absl::Status& status) {
    context_.NoteFailure(status, read.served.id, grpc_.peer());
    MutexLock lock(mutex_);
    slow_.erase(read.id);
    FailLocked(read.id, status);
    ProceedLocked();
  }

  void FailLocked(uint64_t id, const absl::Status& status) PEERCHUNK_REQUIRES(mutex_) {
    const bool busy = absl::IsResourceExhausted(status);
    AnswerParts parts;
    parts.Add(
        FramePartError(id, status, busy ? context_.options.retry_hint : absl::ZeroDuration()));
    parts.ends = 1;
    parts_.push_back(std::move(parts));
  }

  void OnWritten(bool) {  // A failure shows as the call's end.
    MutexLock lock(mutex_);
    writing_ = false;
    stall_.Ended();
    written_leases_.clear();
    under_way_ -= std::exchange(ends_in_write_, 0);
    ProceedLocked();
  }

  void OnStallAlarm() {
    MutexLock lock(mutex_);
    if (!stall_.Stalled(Weakly(&ReadCall::OnStallAlarm))) return;
    context_.stalled_calls.Add();
    grpc_.TryCancel();
  }

  void TryCancel() { grpc_.TryCancel(); }

  void EndWhenIdle() {
    MutexLock lock(mutex_);
    draining_ = true;
    ProceedLocked();
  }

  // Does whatever can be done now: the next message, the next request, the end.
  void ProceedLocked() PEERCHUNK_REQUIRES(mutex_) {
    if (finished_) return;
    if (pending_finish_) return FinishLocked(*pending_finish_);
    if (over_) {
      for (const AnswerParts& parts : parts_) under_way_ -= parts.ends;
      parts_.clear();
      return FinishLocked(absl::CancelledError("the reader went away"));
    }
    if (!writing_ && !parts_.empty()) WriteLocked();
    if (!reading_ && !requests_ended_ && under_way_ < kMostReadsUnderWay && MayReadLocked()) {
      StartReadLocked();
    }
    if (under_way_ > 0 || writing_) return;
    if (requests_ended_) {
      FinishLocked(absl::OkStatus());
    } else if (draining_) {
      grpc_.TryCancel();  // The reader has nothing under way; OnRead hears of it.
    }
  }

  // Answers are sent as they are ready. When more of them went out than is paid for, no request is
  // taken from the stream until it is; nothing is held for those that wait there.
  bool MayReadLocked() PEERCHUNK_REQUIRES(mutex_) {
    if (turn_ != 0) return false;
    if (std::exchange(has_turn_, false)) return true;
    if (context_.pacer.TrySpend(Priority::kDemand, 0)) return true;
    turn_ =
        context_.pacer.Wait(peer_, Priority::kDemand, 0,
                            [weak = weak_from_this(), peer = peer_, &readers = context_.readers] {
                              readers.Run(peer, Priority::kDemand, [weak] {
                                if (const std::shared_ptr<ReadCall> self = weak.lock())
                                  self->OnTurn();
                              });
                            });
    return false;
  }

  void OnTurn() {
    MutexLock lock(mutex_);
    turn_ = 0;
    has_turn_ = true;
    ProceedLocked();
  }

  void WriteLocked() PEERCHUNK_REQUIRES(mutex_) {
    size_t bytes = 0;
    outgoing_.clear();
    while (!parts_.empty() && bytes < kMessageBytes) {
      AnswerParts parts = std::move(parts_.front());
      parts_.pop_front();
      bytes += parts.bytes;
      std::move(parts.slices.begin(), parts.slices.end(), std::back_inserter(outgoing_));
      if (parts.lease.bytes() > 0) written_leases_.push_back(std::move(parts.lease));
      ends_in_write_ += parts.ends;
    }
    context_.served_bytes.Add(bytes);
    context_.pacer.Spend(Priority::kDemand, bytes);
    writing_ = true;
    stall_.Began(Weakly(&ReadCall::OnStallAlarm));
    const grpc::ByteBuffer message(outgoing_.data(), outgoing_.size());
    outgoing_.clear();
    stream_.Write(message, Operation(&ReadCall::OnWritten));
  }

  // The one way to the call's end.
  void FinishLocked(const absl::Status& status) PEERCHUNK_REQUIRES(mutex_) {
    if (finished_) return;
    if (reading_ || writing_) {  // gRPC allows no other operation beside it; what ends goes on.
      if (!pending_finish_) pending_finish_ = status;
      return;
    }
    finished_ = true;
    parts_.clear();
    for (auto& [id, read] : slow_) read->cancel.request_stop();
    stream_.Finish(FinalStatus(context_, status, grpc_), Operation(&ReadCall::OnFinished));
  }

  void OnFinished(bool) {}

  ServiceContext& context_;
  grpc::ServerCompletionQueue* const queue_;
  grpc::ServerContext grpc_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream_;
  grpc::ByteBuffer incoming_;
  v1::ReadBuildFileRequest request_;         // Of the queue's thread; used again.
  CallOperation* done_operation_ = nullptr;  // Owned by the queue once the call has begun.
  std::string peer_;
  std::optional<ActiveCalls::Admission> admission_;
  std::shared_ptr<ByteBudget::Account> account_;

  Mutex mutex_;
  std::map<uint64_t, std::shared_ptr<SlowRead>> slow_ PEERCHUNK_GUARDED_BY(mutex_);
  std::deque<AnswerParts> parts_ PEERCHUNK_GUARDED_BY(mutex_);
  std::vector<grpc::Slice> outgoing_ PEERCHUNK_GUARDED_BY(mutex_);  // Used again.
  std::vector<ByteBudget::Lease> written_leases_ PEERCHUNK_GUARDED_BY(mutex_);
  StallWatch stall_ PEERCHUNK_GUARDED_BY(mutex_);
  SendPacer::Ticket turn_ PEERCHUNK_GUARDED_BY(mutex_) = 0;  // Of the next request.
  bool has_turn_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  size_t ends_in_write_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  size_t under_way_ PEERCHUNK_GUARDED_BY(mutex_) = 0;  // Until their last part is written.
  bool reading_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool writing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool requests_ended_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool draining_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool over_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool finished_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> pending_finish_ PEERCHUNK_GUARDED_BY(mutex_);
  // Last, so that they are gone before what they call.
  std::optional<std::stop_callback<std::function<void()>>> on_drain_;
  std::optional<std::stop_callback<std::function<void()>>> on_cancel_;
};

}  // namespace

void AwaitReadCall(ServiceContext& context, grpc::ServerCompletionQueue* queue) {
  if (context.stopping.load()) return;
  std::make_shared<ReadCall>(context, queue)->Await();
}

}  // namespace peerchunk
