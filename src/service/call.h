#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>

#include <absl/status/status.h>
#include <grpcpp/grpcpp.h>

#include "peerchunk/base/mutex.h"
#include "peerchunk/service/chunk_service.h"
#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "service/active_calls.h"
#include "service/alarms.h"
#include "service/buffer_pool.h"
#include "service/byte_budget.h"
#include "service/event_loop.h"
#include "service/peer_turns.h"
#include "service/send_pacer.h"

namespace peerchunk {

// GetBuildFile and ReadBuildFile take and give raw bytes, framed by hand; GetBuildFileInfo uses the
// generated code.
using AsyncChunkService =
    v1::ChunkService::WithRawMethod_GetBuildFile<v1::ChunkService::WithRawMethod_ReadBuildFile<
        v1::ChunkService::WithAsyncMethod_GetBuildFileInfo<v1::ChunkService::Service>>>;

// What the calls of one ChunkService share. Outlives them all.
struct ServiceContext {
  ServiceContext(TemplateCache* cache, const ChunkService::Options& given)
      : templates(cache),
        options(given),
        budget(std::make_shared<ByteBudget>(ByteBudget::Options{
            .limit_bytes = given.max_bytes_in_flight,
            .demand_reserve_bytes = given.demand_reserve_bytes,
            .in_use = &given.metrics->gauge("peerchunk_served_in_flight_bytes"),
            .peak = &given.metrics->gauge("peerchunk_served_in_flight_peak_bytes")})),
        pacer(given.max_bytes_per_second, given.clock, &alarms,
              given.metrics->counter("peerchunk_served_throttled_microseconds_total")),
        buffers(std::make_shared<BufferPool>(given.max_bytes_in_flight / 8)),
        active(given.max_streams, given.max_streams_per_peer),
        relaying(given.max_relays, given.max_relays_per_peer),
        served_bytes(given.metrics->counter("peerchunk_served_bytes_total")),
        stalled_calls(given.metrics->counter("peerchunk_served_stalled_calls_total")),
        alarms(given.clock),
        relays("pc-relay", given.relay_threads, ThreadPool::Turns::kShort),
        readers(&read_pool),
        read_pool("pc-read", given.read_threads, ThreadPool::Turns::kShort) {}

  void CallBegins() {
    MutexLock lock(mutex);
    ++open_calls;
  }
  void CallEnds() {
    MutexLock lock(mutex);
    if (--open_calls == 0) idle.NotifyAll();
  }

  // A call or a read that ended without its bytes.
  void NoteFailure(const absl::Status& status, const BuildFileId& file, const std::string& peer);

  TemplateCache* const templates;
  const ChunkService::Options options;
  AsyncChunkService service;
  const std::shared_ptr<ByteBudget> budget;
  SendPacer pacer;
  const std::shared_ptr<BufferPool> buffers;
  ActiveCalls active;
  ActiveCalls relaying;  // Windows that other nodes are asked for, waiting ones included.
  Counter& served_bytes;
  Counter& stalled_calls;
  std::atomic<bool> stopping{false};
  std::stop_source draining;    // Long-lived streams end when they are idle.
  std::stop_source cancelling;  // All calls end.
  Mutex mutex;
  CondVar idle;
  size_t open_calls PEERCHUNK_GUARDED_BY(mutex) = 0;  // Call objects alive, waiting ones included.
  // Last: their threads use everything above. What waits for another node has threads of its own,
  // so that what is here is served whatever other nodes do.
  Alarms alarms;
  ThreadPool relays;
  PeerTurns readers;  // On the next one's threads.
  ThreadPool read_pool;
};

template <typename Call>
class MemberOperation final : public CallOperation {
 public:
  MemberOperation(std::shared_ptr<Call> call, void (Call::*then)(bool ok),
                  Priority priority = Priority::kDemand)
      : call_(std::move(call)), then_(then), priority_(priority) {}
  void Run(bool ok) override { ((*call_).*then_)(ok); }
  bool waits_for_others() const override { return priority_ == Priority::kPrefetch; }

 private:
  const std::shared_ptr<Call> call_;
  void (Call::*const then_)(bool ok);
  const Priority priority_;
};

// Wait for one call each, and for the next one when that has come.
void AwaitStreamCall(ServiceContext& context, grpc::ServerCompletionQueue* queue);
void AwaitReadCall(ServiceContext& context, grpc::ServerCompletionQueue* queue);
void AwaitInfoCall(ServiceContext& context, grpc::ServerCompletionQueue* queue);

// "ipv4:10.1.2.3:55555" -> "ipv4:10.1.2.3": one peer, whatever the connection.
std::string PeerHost(const std::string& peer);

// `status` for the wire; RESOURCE_EXHAUSTED puts the retry hint into the trailing metadata.
grpc::Status FinalStatus(const ServiceContext& context, const absl::Status& status,
                         grpc::ServerContext& call);

// What a request is refused with that would wait for memory for longer than it may.
absl::Status NoMemoryLeft();
// What a stream is refused, or ended, with whose turn to send does not come in time.
absl::Status NoTurnLeft();
// As long as the first bytes of a request in `lane` may wait for memory.
absl::Duration LongestWait(const ServiceContext& context, Priority lane);

// `deadline` of a call on this library's clock.
absl::Time DeadlineOf(Clock& clock, const grpc::ServerContext& call);

}  // namespace peerchunk
