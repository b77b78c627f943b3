#include "peerchunk/peer/http2_connector.h"

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "peer/http2/connection.h"
#include "peer/http2/shared_stream.h"
#include "peer/http2/single_call.h"
#include "peer/http2/tls_socket.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/status.h"
#include "peerchunk/peer/tls_identity.h"

namespace peerchunk {
namespace {

using http2::Connection;

// How long a peer that asks something of a connection that nobody uses waits for an answer: one
// that is about to stop asks whether its farewell was heard.
constexpr absl::Duration kTendEvery = absl::Milliseconds(200);

class Http2Client final : public ChunkServiceClient,
                          public std::enable_shared_from_this<Http2Client> {
 public:
  Http2Client(PeerAddress address, PeerLane lane, std::shared_ptr<TlsIdentity> tls, Clock& clock)
      : address_(std::move(address)),
        tls_(std::move(tls)),
        clock_(clock),
        shares_reads_(lane == PeerLane::kDemand),
        last_use_(clock.Now()) {}

  absl::StatusOr<FileHead> GetBuildFileInfo(const PeerRequest& request,
                                            const PeerCallOptions& options) override {
    http2::SingleCall call(Connections(), kGetBuildFileInfoMethod, EncodeGetBuildFileInfo(request),
                           options, clock_);
    PEERCHUNK_ASSIGN_OR_RETURN(const auto message, call.Next(absl::InfiniteFuture()));
    if (!message) return absl::InternalError("the peer ended the call without an answer");
    std::string head;
    for (const std::string_view piece : message->pieces) head.append(piece);
    PEERCHUNK_ASSIGN_OR_RETURN(const auto more, call.Next(absl::InfiniteFuture()));
    if (more) return absl::InternalError("the peer answered twice");
    return DecodeHead(head);
  }

  std::unique_ptr<PeerStream> GetBuildFile(const PeerRequest& request,
                                           const PeerCallOptions& options) override {
    const bool shared = request.length && *request.length <= kMaxSharedReadBytes;
    if (!shared || !shares_reads_.load(std::memory_order_relaxed)) return Alone(request, options);
    SharedReadPeerStream::Ways ways;
    ways.shared = [self = shared_from_this()] { return self->SharedStream(); };
    ways.alone = [self = shared_from_this(), request, options] {
      self->shares_reads_.store(false, std::memory_order_relaxed);
      return self->Alone(request, options);
    };
    return std::make_unique<SharedReadPeerStream>(std::move(ways), request, options, clock_);
  }

  bool IsConnected() const override {
    MutexLock lock(mutex_);
    return connection_ != nullptr && connection_->IsOpen();
  }

  bool HasConnection() const {
    MutexLock lock(mutex_);
    return connection_ != nullptr && connection_->IsUsable();
  }

  void Tend() {
    std::shared_ptr<Connection> connection;
    {
      MutexLock lock(mutex_);
      connection = connection_;
    }
    if (connection != nullptr) connection->Tend();
  }

  // Lets go of a connection that nobody has used since `then`.
  void CloseIfUnusedSince(absl::Time then) {
    std::shared_ptr<http2::SharedStream> stream;  // These go without the lock.
    std::shared_ptr<Connection> connection;
    MutexLock lock(mutex_);
    if (connection_ == nullptr || last_use_ > then) return;
    if (stream_ != nullptr && !stream_->IsIdle()) return;
    if (!connection_->HasNoCallsBut(stream_ != nullptr && stream_->IsAlive() ? 1 : 0)) return;
    stream = std::move(stream_);
    connection = std::move(connection_);
  }

 private:
  std::unique_ptr<PeerStream> Alone(const PeerRequest& request, const PeerCallOptions& options) {
    return std::make_unique<http2::Http2PeerStream>(Connections(), request, options, clock_);
  }

  http2::ConnectionSource Connections() {
    return [self = shared_from_this()] { return self->UsableConnection(); };
  }

  absl::StatusOr<std::shared_ptr<Connection>> UsableConnection() {
    {
      MutexLock lock(mutex_);
      last_use_ = clock_.Now();
      if (connection_ != nullptr && connection_->IsUsable()) return connection_;
    }
    PEERCHUNK_ASSIGN_OR_RETURN(auto socket, http2::DialTcp(address_));
    if (tls_ != nullptr) {
      PEERCHUNK_ASSIGN_OR_RETURN(socket, http2::WrapInTls(std::move(socket), *tls_, address_));
    }
    auto made = std::make_shared<Connection>(std::move(socket), address_.ToString(),
                                             tls_ != nullptr, clock_);
    MutexLock lock(mutex_);
    // Another thread may have been quicker; then this one, never used, goes without the lock.
    if (connection_ == nullptr || !connection_->IsUsable()) connection_.swap(made);
    return connection_;
  }

  std::shared_ptr<SharedReads> SharedStream() {
    auto connection = UsableConnection();
    if (!connection.ok()) return std::make_shared<http2::NoSharedReads>(connection.status());
    std::shared_ptr<http2::SharedStream> ended;  // Goes without the lock.
    std::shared_ptr<http2::SharedStream> stream;
    {
      MutexLock lock(mutex_);
      if (stream_ == nullptr || !stream_->IsAlive()) {
        ended = std::exchange(stream_, http2::SharedStream::Make(*std::move(connection), clock_));
      }
      stream = stream_;
    }
    stream->Begin();
    return stream;
  }

  const PeerAddress address_;
  const std::shared_ptr<TlsIdentity> tls_;
  Clock& clock_;
  // False for good once the peer turned out not to know ReadBuildFile.
  std::atomic<bool> shares_reads_;
  mutable Mutex mutex_;
  absl::Time last_use_ PEERCHUNK_GUARDED_BY(mutex_);
  std::shared_ptr<Connection> connection_ PEERCHUNK_GUARDED_BY(mutex_);
  std::shared_ptr<http2::SharedStream> stream_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace

struct Http2Connector::Impl {
  using Key = std::pair<std::string, PeerLane>;

  explicit Impl(Options given) : options(std::move(given)) {}

  std::vector<std::shared_ptr<Http2Client>> Clients() const {
    std::vector<std::shared_ptr<Http2Client>> all;
    MutexLock lock(mutex);
    for (const auto& [key, client] : clients) all.push_back(client);
    return all;
  }

  // False: stopped.
  bool AwaitClient(const std::stop_token& stop) {
    const std::stop_callback wake(stop, [this] {
      MutexLock lock(mutex);
      has_clients.NotifyAll();
    });
    MutexLock lock(mutex);
    while (clients.empty() && !stop.stop_requested()) has_clients.Wait(mutex);
    return !stop.stop_requested();
  }

  void CloseIdle() {
    const absl::Time then = options.clock->Now() - options.idle_timeout;
    for (const auto& client : Clients()) client->CloseIfUnusedSince(then);
    // Clients that nobody else has and that have no connection are made again when needed.
    std::vector<std::shared_ptr<Http2Client>> gone;
    MutexLock lock(mutex);
    std::erase_if(clients, [&](auto& entry) {
      const bool unused = entry.second.use_count() == 1 && !entry.second->HasConnection();
      if (unused) gone.push_back(std::move(entry.second));
      return unused;
    });
  }

  const Options options;
  mutable Mutex mutex;
  std::map<Key, std::shared_ptr<Http2Client>> clients PEERCHUNK_GUARDED_BY(mutex);
  CondVar has_clients;
  std::jthread tends;  // Last: it uses the above.
};

Http2Connector::Http2Connector(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Http2Connector::~Http2Connector() = default;

std::shared_ptr<Http2Connector> Http2Connector::Create(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  impl->tends = std::jthread([impl = impl.get()](const std::stop_token& stop) {
    Clock& clock = *impl->options.clock;
    while (impl->AwaitClient(stop) && clock.SleepUntil(clock.Now() + kTendEvery, stop)) {
      for (const auto& client : impl->Clients()) client->Tend();
      impl->CloseIdle();
    }
  });
  return std::shared_ptr<Http2Connector>(new Http2Connector(std::move(impl)));
}

absl::StatusOr<std::shared_ptr<ChunkServiceClient>> Http2Connector::Connect(
    const PeerAddress& address, PeerLane lane) {
  const bool plaintext = impl_->options.tls == nullptr;
  if (plaintext && !address.is_loopback() && !impl_->options.insecure_plaintext) {
    return PlaintextRefused(address);
  }
  MutexLock lock(impl_->mutex);
  auto& client = impl_->clients[{address.ToString(), lane}];
  if (client == nullptr) {
    client =
        std::make_shared<Http2Client>(address, lane, impl_->options.tls, *impl_->options.clock);
    impl_->has_clients.NotifyAll();
  }
  return client;
}

void Http2Connector::CloseIdle() { impl_->CloseIdle(); }

size_t Http2Connector::connections() const {
  size_t count = 0;
  for (const auto& client : impl_->Clients()) count += client->HasConnection() ? 1 : 0;
  return count;
}

}  // namespace peerchunk
