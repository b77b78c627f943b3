#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"
#include "service/call.h"
#include "service/extent_source.h"
#include "service/framing.h"
#include "service/served_range.h"

namespace peerchunk {
namespace {

constexpr uint64_t kMaxReadBytes = 1024 * 1024;  // Of one read; longer ones have GetBuildFile.
constexpr uint64_t kInlineBytes = 64 * 1024;     // Read on the queue's thread, if in memory.
// With so many reads under way no more are taken from the stream until some are answered.
constexpr size_t kMostUnderWay = 512;
// A message is closed when it has this much; less than what a reader takes even with 1 MiB more.
constexpr size_t kMessageBytes = 512 * 1024;
// Data up to this is copied into the message: a slice of its own costs more.
constexpr size_t kCopyBytes = 16 * 1024;

absl::StatusOr<v1::ReadBuildFileRequest> Parse(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return absl::InvalidArgumentError("unreadable request");
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  v1::ReadBuildFileRequest request;
  if (!request.ParseFromString(bytes)) return absl::InvalidArgumentError("malformed request");
  return request;
}

// Parts of answers on their way into one message.
class MessageBuilder {
 public:
  size_t bytes() const { return bytes_; }

  void Append(FramedMessage part) {
    bytes_ += part.size();
    tail_ += part.prefix;
    if (!part.data) return;
    if (part.data->size() <= kCopyBytes) {
      tail_.append(reinterpret_cast<const char*>(part.data->begin()), part.data->size());
      return;
    }
    CloseTail();
    slices_.push_back(*std::move(part.data));
  }

  grpc::ByteBuffer Take() {
    CloseTail();
    return grpc::ByteBuffer(slices_.data(), slices_.size());
  }

 private:
  void CloseTail() {
    if (!tail_.empty()) slices_.emplace_back(std::exchange(tail_, {}));
  }

  size_t bytes_ = 0;
  std::string tail_;
  std::vector<grpc::Slice> slices_;
};

// One ReadBuildFile: the demand reads of one connection. Owned by its operations and tasks; gone
// with the last of them.
//
//   queue: OnRequest -> OnRead: what is in memory is answered there and then; the rest goes through
//          budget -> reader: Produce, as in GetBuildFile
//   answers gather while a message is being written: OnWritten -> the next message
//
// `mutex_` guards what the queue's thread and the readers share; at most one Read and one Write are
// under way. Finish is started once, with no Read under way.
class ReadCall final : public std::enable_shared_from_this<ReadCall> {
 public:
  ReadCall(ServiceContext& context, grpc::ServerCompletionQueue* queue)
      : context_(context), queue_(queue), stream_(&grpc_) {
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
    uint64_t id = 0;
    ServedRange served;
    std::optional<ExtentSource> source;
    ReadOptions options;
    absl::Time deadline;
    bool head_sent = false;
    std::stop_source cancel;
  };
  struct Part {
    FramedMessage message;
    ByteBudget::Lease lease;  // Of data that no window accounts for.
    bool last = false;        // Of its read.
  };

  void* Operation(void (ReadCall::*then)(bool)) {
    return static_cast<CallOperation*>(new MemberOperation<ReadCall>(shared_from_this(), then));
  }

  void OnRequest(bool ok) {
    if (!ok) {  // As in GetBuildFile: the server is shutting down.
      delete std::exchange(done_operation_, nullptr);
      return;
    }
    AwaitReadCall(context_, queue_);
    auto admission = context_.active.Admit(PeerHost(grpc_.peer()));
    if (!admission.ok()) {
      MutexLock lock(mutex_);
      return FinishLocked(admission.status());
    }
    admission_.emplace(*std::move(admission));
    // Not under the lock: it runs at once when the node is draining already.
    on_drain_.emplace(context_.draining.get_token(), [weak = weak_from_this()] {
      if (const std::shared_ptr<ReadCall> self = weak.lock()) self->EndWhenIdle();
    });
    MutexLock lock(mutex_);
    ProceedLocked();
  }

  // Runs when the call is over, for whatever reason.
  void OnDone(bool) {
    done_operation_ = nullptr;
    MutexLock lock(mutex_);
    over_ = true;
    for (auto& [id, read] : slow_) read->cancel.request_stop();
    parts_.clear();
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
    const auto request = Parse(incoming_);
    incoming_.Clear();
    std::vector<Part> ready;
    std::vector<v1::FileRead> slow;
    if (request.ok()) {
      for (const v1::FileRead& read : request->reads()) {
        if (auto part = ReadAtOnce(read)) {
          ready.push_back(*std::move(part));
        } else {
          slow.push_back(read);
        }
      }
    }
    std::vector<std::shared_ptr<SlowRead>> started;
    {
      MutexLock lock(mutex_);
      reading_ = false;
      if (!request.ok()) return FinishLocked(request.status());
      under_way_ += ready.size() + slow.size();
      for (Part& part : ready) parts_.push_back(std::move(part));
      for (const v1::FileRead& read : slow) {
        auto entry = std::make_shared<SlowRead>();
        entry->id = read.id();
        if (slow_.emplace(read.id(), entry).second) {
          started.push_back(entry);
        } else {
          FailLocked(read.id(), absl::InvalidArgumentError("two reads of one id are under way"));
          started.push_back(nullptr);
        }
      }
      for (const uint64_t id : request->cancelled()) {
        if (const auto found = slow_.find(id); found != slow_.end()) {
          found->second->cancel.request_stop();
        }
      }
      ProceedLocked();
    }
    for (size_t i = 0; i < slow.size(); ++i) {
      if (started[i] == nullptr) continue;
      context_.readers.Run(Priority::kDemand,
                           [self = shared_from_this(), read = started[i],
                            wire = std::move(slow[i])] { self->Begin(read, wire); });
    }
  }

  static absl::Status CheckLength(const v1::GetBuildFileRequest& request) {
    if (request.has_length() && request.length() <= kMaxReadBytes) return absl::OkStatus();
    return absl::InvalidArgumentError("a read names its length, at most 1 MiB");
  }

  // The whole answer, when it takes no waiting; nothing: it does.
  std::optional<Part> ReadAtOnce(const v1::FileRead& wire) {
    const bool in_memory_only =
        wire.read().file() == v1::BUILD_FILE_MEMFILE || wire.read().file() == v1::BUILD_FILE_ROOTFS;
    if (!in_memory_only || wire.read().length() > kInlineBytes) return std::nullopt;
    if (!CheckLength(wire.read()).ok()) return std::nullopt;
    const auto served = ResolveRange(*context_.templates, wire.read());
    if (!served.ok()) return std::nullopt;  // Begin finds out again, and says so.
    Part part{.message = {}, .lease = {}, .last = true};
    std::optional<OutgoingExtent> extent;
    const ByteRange range = served->range;
    if (served->file != nullptr && range.length > 0) {
      auto lease = context_.budget->TryAcquire(range.length);
      if (!lease) return std::nullopt;
      part.lease = *std::move(lease);
      grpc::Slice data(range.length);
      auto* const bytes = const_cast<char*>(reinterpret_cast<const char*>(data.begin()));
      if (!served->file->TryReadAt(range.offset, absl::MakeSpan(bytes, range.length))) {
        return std::nullopt;
      }
      extent.emplace(OutgoingExtent{.offset = range.offset, .zero_length = 0, .data = {}});
      if (const std::string_view view(bytes, range.length); IsAllZero(view)) {
        extent->zero_length = range.length;
      } else {
        extent->crc32c = Crc32c(view);
        extent->data = std::move(data);
      }
    }
    part.message = FramePart(
        wire.id(),
        FrameMessage(served->head, extent, OutgoingEnd{served->head.status, range.end(), false}));
    return part;
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
    if (context_.budget->waiting() > context_.options.max_streams / 2) {
      return absl::ResourceExhaustedError("this node has no memory left for another read");
    }
    PEERCHUNK_ASSIGN_OR_RETURN(read.served, ResolveRange(*context_.templates, wire.read()));
    read.options = read.served.Options();
    read.options.cancellation = read.cancel.get_token();
    read.deadline = wire.timeout_ms() == 0
                        ? absl::InfiniteFuture()
                        : context_.options.clock->Now() + absl::Milliseconds(wire.timeout_ms());
    if (read.served.file != nullptr) {
      read.source.emplace(std::move(read.served.file), read.served.range,
                          read.served.relays_left == 0);
    }
    return absl::OkStatus();
  }

  void NextWindow(const std::shared_ptr<SlowRead>& read) {
    context_.budget->Acquire(read->source->NextWindowBytes(),
                             [self = shared_from_this(), read](ByteBudget::Lease lease) {
                               // std::function wants copies; the one task that runs takes the lease
                               // out.
                               auto shared = std::make_shared<ByteBudget::Lease>(std::move(lease));
                               self->context_.readers.Run(Priority::kDemand, [self, read, shared] {
                                 self->Produce(read, std::move(*shared));
                               });
                             });
  }

  void Produce(const std::shared_ptr<SlowRead>& read, ByteBudget::Lease lease) {
    if (read->cancel.stop_requested()) return Fail(*read, absl::CancelledError("cancelled"));
    read->options.deadline =
        std::min(read->deadline, context_.options.clock->Now() + context_.options.relay_timeout);
    std::deque<OutgoingExtent> extents;
    const absl::Status status = read->source->Read(std::move(lease), read->options, extents);
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
      parts_.push_back({.message = FramePart(read.id, FrameMessage(head, extent, end)),
                        .lease = {},
                        .last = end.has_value()});
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
    parts_.push_back({.message = FramePartError(
                          id, status, busy ? context_.options.retry_hint : absl::ZeroDuration()),
                      .lease = {},
                      .last = true});
  }

  void OnWritten(bool) {  // A failure shows as the call's end.
    MutexLock lock(mutex_);
    writing_ = false;
    written_leases_.clear();
    under_way_ -= std::exchange(ends_in_write_, 0);
    ProceedLocked();
  }

  void EndWhenIdle() {
    MutexLock lock(mutex_);
    draining_ = true;
    ProceedLocked();
  }

  // Does whatever can be done now: the next message, the next request, the end.
  void ProceedLocked() PEERCHUNK_REQUIRES(mutex_) {
    if (finished_) return;
    if (over_) {
      while (!parts_.empty()) {
        under_way_ -= parts_.front().last ? 1 : 0;
        parts_.pop_front();
      }
      if (!reading_ && !writing_) FinishLocked(absl::CancelledError("the reader went away"));
      return;
    }
    if (!writing_ && !parts_.empty()) WriteLocked();
    if (!reading_ && !requests_ended_ && under_way_ < kMostUnderWay) StartReadLocked();
    if (under_way_ > 0 || writing_) return;
    if (requests_ended_) {
      FinishLocked(absl::OkStatus());
    } else if (draining_) {
      grpc_.TryCancel();  // The reader has nothing under way; OnRead hears of it.
    }
  }

  void WriteLocked() PEERCHUNK_REQUIRES(mutex_) {
    MessageBuilder message;
    while (!parts_.empty() && message.bytes() < kMessageBytes) {
      Part part = std::move(parts_.front());
      parts_.pop_front();
      message.Append(std::move(part.message));
      if (part.lease.bytes() > 0) written_leases_.push_back(std::move(part.lease));
      ends_in_write_ += part.last ? 1 : 0;
    }
    context_.served_bytes.Add(message.bytes());
    writing_ = true;
    stream_.Write(message.Take(), Operation(&ReadCall::OnWritten));
  }

  void FinishLocked(const absl::Status& status) PEERCHUNK_REQUIRES(mutex_) {
    finished_ = true;
    for (auto& [id, read] : slow_) read->cancel.request_stop();
    stream_.Finish(FinalStatus(context_, status, grpc_), Operation(&ReadCall::OnFinished));
  }

  void OnFinished(bool) {}

  ServiceContext& context_;
  grpc::ServerCompletionQueue* const queue_;
  grpc::ServerContext grpc_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream_;
  grpc::ByteBuffer incoming_;
  CallOperation* done_operation_ = nullptr;  // Owned by the queue once the call has begun.
  std::optional<ActiveCalls::Admission> admission_;

  Mutex mutex_;
  std::map<uint64_t, std::shared_ptr<SlowRead>> slow_ PEERCHUNK_GUARDED_BY(mutex_);
  std::deque<Part> parts_ PEERCHUNK_GUARDED_BY(mutex_);
  std::vector<ByteBudget::Lease> written_leases_ PEERCHUNK_GUARDED_BY(mutex_);
  size_t ends_in_write_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  size_t under_way_ PEERCHUNK_GUARDED_BY(mutex_) = 0;  // Until their last part is written.
  bool reading_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool writing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool requests_ended_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool draining_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool over_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool finished_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  // Last, so that it is gone before what it calls.
  std::optional<std::stop_callback<std::function<void()>>> on_drain_;
};

}  // namespace

void AwaitReadCall(ServiceContext& context, grpc::ServerCompletionQueue* queue) {
  if (context.stopping.load()) return;
  std::make_shared<ReadCall>(context, queue)->Await();
}

}  // namespace peerchunk
