#include "peerchunk/peer/grpc_connector.h"

#include <atomic>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "peer/grpc/channel_arguments.h"
#include "peer/grpc/grpc_peer_stream.h"
#include "peer/grpc/read_stream.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

class GrpcChunkServiceClient final : public ChunkServiceClient,
                                     public std::enable_shared_from_this<GrpcChunkServiceClient> {
 public:
  GrpcChunkServiceClient(std::shared_ptr<grpc::Channel> channel, PeerLane lane, Clock& clock)
      : channel_(std::move(channel)), clock_(clock), shares_reads_(lane == PeerLane::kDemand) {}

  absl::StatusOr<FileHead> GetBuildFileInfo(const PeerRequest& request,
                                            const PeerCallOptions& options) override {
    grpc::ClientContext context;
    context.set_deadline(ToSystemTime(clock_, options.deadline));
    const std::stop_callback cancel(options.cancellation, [&context] { context.TryCancel(); });
    grpc::CompletionQueue queue;
    grpc::GenericStub stub(channel_);
    const auto call = stub.PrepareUnaryCall(&context, kGetBuildFileInfoMethod,
                                            ToBuffer(EncodeGetBuildFileInfo(request)), &queue);
    call->StartCall();
    grpc::ByteBuffer answer;
    grpc::Status status;
    call->Finish(&answer, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    PEERCHUNK_RETURN_IF_ERROR(CallStatus(status, context));
    std::string head;
    const MessageBytes bytes = BytesOf(answer);
    for (const std::string_view piece : bytes.pieces) head.append(piece);
    return DecodeHead(head);
  }

  std::unique_ptr<PeerStream> GetBuildFile(const PeerRequest& request,
                                           const PeerCallOptions& options) override {
    const bool shared = request.length && *request.length <= kMaxSharedReadBytes;
    if (!shared || !shares_reads_.load(std::memory_order_relaxed)) {
      return std::make_unique<GrpcPeerStream>(channel_, request, options, clock_);
    }
    SharedReadPeerStream::Ways ways;
    ways.shared = [self = shared_from_this()] { return self->SharedStream(); };
    ways.alone = [self = shared_from_this(), request, options]() -> std::unique_ptr<PeerStream> {
      self->shares_reads_.store(false, std::memory_order_relaxed);
      return std::make_unique<GrpcPeerStream>(self->channel_, request, options, self->clock_);
    };
    return std::make_unique<SharedReadPeerStream>(std::move(ways), request, options, clock_);
  }

  bool IsConnected() const override { return channel_->GetState(false) == GRPC_CHANNEL_READY; }

 private:
  std::shared_ptr<SharedReads> SharedStream() {
    std::shared_ptr<ReadStream> ended;  // Goes without the lock.
    MutexLock lock(mutex_);
    if (reads_ == nullptr || !reads_->IsAlive()) {
      ended = std::exchange(reads_, std::make_shared<ReadStream>(channel_, clock_));
    }
    return reads_;
  }

  const std::shared_ptr<grpc::Channel> channel_;
  Clock& clock_;
  // False for good once the peer turned out not to know ReadBuildFile.
  std::atomic<bool> shares_reads_;
  Mutex mutex_;
  std::shared_ptr<ReadStream> reads_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace

struct GrpcConnector::Impl {
  using Key = std::pair<std::string, PeerLane>;
  struct Entry {
    std::shared_ptr<ChunkServiceClient> client;
    absl::Time last_use;
  };

  explicit Impl(Options given) : options(std::move(given)) {}

  std::shared_ptr<grpc::Channel> MakeChannel(const PeerAddress& address, PeerLane lane) const {
    return grpc::CreateCustomChannel(
        address.target(),
        options.credentials ? options.credentials : grpc::InsecureChannelCredentials(),
        PeerChannelArguments(lane, options.idle_timeout));
  }

  // Takes out of the pool what nobody has used for long; the caller lets go of it without the lock.
  std::vector<std::shared_ptr<ChunkServiceClient>> TakeIdle(absl::Time now)
      PEERCHUNK_REQUIRES(mutex) {
    std::vector<std::shared_ptr<ChunkServiceClient>> idle;
    for (auto it = pool.begin(); it != pool.end();) {
      const bool unused = it->second.client.use_count() == 1;
      if (unused && now - it->second.last_use >= options.idle_timeout) {
        idle.push_back(std::move(it->second.client));
        it = pool.erase(it);
      } else {
        ++it;
      }
    }
    return idle;
  }

  const Options options;
  mutable Mutex mutex;
  std::map<Key, Entry> pool PEERCHUNK_GUARDED_BY(mutex);
};

GrpcConnector::GrpcConnector(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GrpcConnector::~GrpcConnector() = default;

std::shared_ptr<GrpcConnector> GrpcConnector::Create(Options options) {
  return std::shared_ptr<GrpcConnector>(
      new GrpcConnector(std::make_unique<Impl>(std::move(options))));
}

absl::StatusOr<std::shared_ptr<ChunkServiceClient>> GrpcConnector::Connect(
    const PeerAddress& address, PeerLane lane) {
  const bool plaintext = impl_->options.credentials == nullptr;
  if (plaintext && !address.is_loopback() && !impl_->options.insecure_plaintext) {
    return PlaintextRefused(address);
  }
  const Impl::Key key(address.ToString(), lane);
  const absl::Time now = impl_->options.clock->Now();
  std::vector<std::shared_ptr<ChunkServiceClient>> idle;
  {
    MutexLock lock(impl_->mutex);
    if (auto it = impl_->pool.find(key); it != impl_->pool.end()) {
      it->second.last_use = now;
      return it->second.client;
    }
    idle = impl_->TakeIdle(now);
  }
  // Two threads may both make one; the second finds the first's and lets its own, never connected,
  // go.
  std::shared_ptr<ChunkServiceClient> made = std::make_shared<GrpcChunkServiceClient>(
      impl_->MakeChannel(address, lane), lane, *impl_->options.clock);
  MutexLock lock(impl_->mutex);
  Impl::Entry& entry = impl_->pool[key];
  if (entry.client == nullptr) entry.client = std::move(made);
  entry.last_use = now;
  return entry.client;
}

size_t GrpcConnector::channels() const {
  MutexLock lock(impl_->mutex);
  return impl_->pool.size();
}

}  // namespace peerchunk
