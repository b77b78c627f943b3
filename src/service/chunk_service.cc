#include "peerchunk/service/chunk_service.h"

#include <pthread.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "base/grpc_status.h"
#include "base/logging.h"
#include "base/short_turns.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "service/call.h"
#include "service/event_loop.h"

namespace peerchunk {

std::string PeerHost(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

grpc::Status FinalStatus(const ServiceContext& context, const absl::Status& status,
                         grpc::ServerContext& call) {
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    call.AddTrailingMetadata("peerchunk-retry-after-ms",
                             std::to_string(absl::ToInt64Milliseconds(context.options.retry_hint)));
  }
  return ToGrpcStatus(status);
}

absl::Status NoMemoryLeft() {
  return absl::ResourceExhaustedError("this node has no memory left to serve you: try again later");
}

absl::Status NoTurnLeft() {
  return absl::ResourceExhaustedError("this node sends as much as it may: try again later");
}

absl::Duration LongestWait(const ServiceContext& context, Priority lane) {
  return lane == Priority::kDemand ? context.options.longest_demand_wait
                                   : context.options.longest_prefetch_wait;
}

absl::Time DeadlineOf(Clock& clock, const grpc::ServerContext& call) {
  const auto deadline = call.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return clock.Now() + absl::FromChrono(deadline - std::chrono::system_clock::now());
}

void ServiceContext::NoteFailure(const absl::Status& status, const BuildFileId& file,
                                 const std::string& peer) {
  options.metrics
      ->counter("peerchunk_served_failures_total",
                {{"reason", absl::StatusCodeToString(status.code())}})
      .Add();
  if (status.code() == absl::StatusCode::kDataLoss ||
      status.code() == absl::StatusCode::kInternal) {
    Logger("service").error("event=serve_failed file={} peer={} cause=\"{}\"", file.ObjectPath(),
                            peer, status.ToString());
  }
}

namespace {

class GrpcEventQueue final : public EventQueue {
 public:
  explicit GrpcEventQueue(grpc::ServerCompletionQueue& queue) : queue_(queue) {}

  Event Look() override {
    void* tag = nullptr;
    bool ok = false;
    // Where no event is there, gRPC polls its connections once, also when the deadline has passed.
    switch (queue_.AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC))) {
      case grpc::CompletionQueue::GOT_EVENT:
        return Of(tag, ok);
      case grpc::CompletionQueue::TIMEOUT:
        return {};
      case grpc::CompletionQueue::SHUTDOWN:
        break;
    }
    return {.status = Status::kShutDown, .operation = nullptr};
  }
  Event Wait() override {
    void* tag = nullptr;
    bool ok = false;
    if (queue_.Next(&tag, &ok)) return Of(tag, ok);
    return {.status = Status::kShutDown, .operation = nullptr};
  }

 private:
  static Event Of(void* tag, bool ok) {
    return {.status = Status::kEvent,
            .operation = std::unique_ptr<CallOperation>(static_cast<CallOperation*>(tag)),
            .ok = ok};
  }

  grpc::ServerCompletionQueue& queue_;
};

}  // namespace

struct ChunkService::Impl {
  Impl(TemplateCache* templates, const Options& options) : context(templates, options) {}

  void Serve(grpc::ServerCompletionQueue* queue) {
    PreferShortTurns();
    GrpcEventQueue events(*queue);
    EventLoop(events).Run();
  }

  ServiceContext context;
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  std::vector<std::thread> threads;
  bool shut_down = false;
};

ChunkService::ChunkService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ChunkService::~ChunkService() { Shutdown(absl::InfinitePast()); }

absl::StatusOr<std::unique_ptr<ChunkService>> ChunkService::Create(TemplateCache* templates,
                                                                   Options options) {
  if (templates == nullptr || options.metrics == nullptr) {
    return absl::InvalidArgumentError("ChunkService needs a TemplateCache and Metrics");
  }
  if (options.queue_threads == 0 || options.read_threads == 0 || options.relay_threads == 0 ||
      options.max_streams == 0 || options.max_streams_per_peer == 0 || options.max_relays == 0 ||
      options.max_relays_per_peer == 0) {
    return absl::InvalidArgumentError("ChunkService needs at least one of each thread and stream");
  }
  constexpr uint64_t kLeastBudget = 2 * kMiB;
  if (options.max_bytes_in_flight < kLeastBudget) {
    return absl::InvalidArgumentError(absl::StrCat("max_bytes_in_flight is ",
                                                   options.max_bytes_in_flight,
                                                   "; two messages of 1 MiB have to fit"));
  }
  if (options.max_bytes_per_second != 0 && options.max_bytes_per_second < kLeastBytesPerSecond) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_bytes_per_second is ", options.max_bytes_per_second, "; below ",
                     kLeastBytesPerSecond, " readers would take this node for stalled"));
  }
  return std::unique_ptr<ChunkService>(
      new ChunkService(std::make_unique<Impl>(templates, options)));
}

void ChunkService::RegisterWith(grpc::ServerBuilder& builder) {
  builder.RegisterService(&impl_->context.service);
  for (size_t i = 0; i < impl_->context.options.queue_threads; ++i) {
    impl_->queues.push_back(builder.AddCompletionQueue());
  }
}

absl::Status ChunkService::Start() {
  if (impl_->queues.empty()) {
    return absl::FailedPreconditionError("ChunkService::Start before RegisterWith");
  }
  if (!impl_->threads.empty()) {
    return absl::FailedPreconditionError("ChunkService::Start twice");
  }
  for (auto& queue : impl_->queues) {
    AwaitStreamCall(impl_->context, queue.get());
    AwaitReadCall(impl_->context, queue.get());
    AwaitInfoCall(impl_->context, queue.get());
    impl_->threads.emplace_back([this, queue = queue.get()] { impl_->Serve(queue); });
    pthread_setname_np(impl_->threads.back().native_handle(),
                       absl::StrCat("pc-queue-", impl_->threads.size() - 1).substr(0, 15).c_str());
  }
  return absl::OkStatus();
}

void ChunkService::BeginShutdown() { impl_->context.draining.request_stop(); }

void ChunkService::Shutdown(absl::Time deadline) {
  if (std::exchange(impl_->shut_down, true)) return;
  ServiceContext& context = impl_->context;
  context.stopping.store(true);
  if (!impl_->threads.empty()) {
    // None may start an operation on a queue that is shut down.
    const auto await_calls = [&context](absl::Time until) {
      MutexLock lock(context.mutex);
      while (context.open_calls > 0 && context.options.clock->Now() < until) {
        context.options.clock->WaitUntil(context.idle, context.mutex, until);
      }
    };
    await_calls(deadline);
    context.cancelling.request_stop();
    await_calls(absl::InfiniteFuture());
  }
  for (auto& queue : impl_->queues) queue->Shutdown();
  for (std::thread& thread : impl_->threads) thread.join();
  if (impl_->threads.empty()) {
    for (auto& queue : impl_->queues) {
      void* tag = nullptr;
      bool ok = false;
      while (queue->Next(&tag, &ok)) {
      }
    }
  }
}

}  // namespace peerchunk
