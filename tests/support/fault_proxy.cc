#include "tests/support/fault_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <deque>
#include <list>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk::test {
namespace {

constexpr size_t kSegmentBytes = 16 * 1024;
constexpr size_t kQueueBytes = 32 * 1024;
constexpr size_t kDelayedQueueBytes = 16 * 1024 * 1024;
// Also keeps the source's congestion window small, and with it the kernel's send buffer.
constexpr int kSmallBuffer = 16 * 1024;
constexpr int kSmallSegment = 1448;

void Check(bool good) {
  if (!good) std::abort();
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

File NewSocket() {
  File socket_file(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  Check(socket_file.fd() >= 0);
  return socket_file;
}

void SetInt(const File& file, int level, int name, int value) {
  Check(setsockopt(file.fd(), level, name, &value, sizeof(value)) == 0);
}

}  // namespace

class FaultProxy::Relay {
 public:
  Relay(uint16_t target_port, const Options& options)
      : target_port_(target_port),
        options_(options),
        random_(options.seed),
        listener_(NewSocket()),
        wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    sockaddr_in address = Loopback(0);
    Check(bind(listener_.fd(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    Check(listen(listener_.fd(), 128) == 0);
    socklen_t length = sizeof(address);
    Check(getsockname(listener_.fd(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~Relay() {
    {
      const MutexLock lock(mutex_);
      ending_ = true;
    }
    Wake();
    thread_.join();
  }

  uint16_t port() const { return port_; }
  uint64_t bytes_forwarded() const {
    const MutexLock lock(mutex_);
    return forwarded_;
  }
  uint64_t connections() const {
    const MutexLock lock(mutex_);
    return connections_;
  }
  void HoldAfter(uint64_t bytes) {
    const MutexLock lock(mutex_);
    allowed_ = bytes;
    held_ = false;
  }
  bool AwaitHeld() {
    const MutexLock lock(mutex_);
    while (!held_ && allowed_ != UINT64_MAX) changed_.Wait(mutex_);
    return held_;
  }
  void Release() {
    {
      const MutexLock lock(mutex_);
      allowed_ = UINT64_MAX;
      held_ = false;
    }
    changed_.NotifyAll();
    Wake();
  }
  void Cut() {
    {
      const MutexLock lock(mutex_);
      cutting_ = true;
    }
    Wake();
  }

 private:
  struct Segment {
    absl::Time due;
    std::string bytes;
  };
  // One direction of a connection.
  struct Flow {
    const File* from = nullptr;
    const File* to = nullptr;
    bool towards_reader = false;
    std::deque<Segment> queue;
    size_t queued = 0;
    absl::Time latest_due = absl::InfinitePast();
    bool ended = false;      // No more will come...
    bool told_end = false;   // ...and the other side knows.
    bool connected = false;  // The destination is.
  };
  struct Connection {
    File reader;
    File source;
    std::array<Flow, 2> flows;
    bool broken = false;
  };

  void Wake() {
    const uint64_t one = 1;
    Check(write(wake_.fd(), &one, sizeof(one)) == sizeof(one));
  }

  void Run() {
    while (true) {
      {
        const MutexLock lock(mutex_);
        if (ending_) return;
        if (std::exchange(cutting_, false)) connections_list_.clear();
      }
      Wait();
      Accept();
      for (Connection& connection : connections_list_) {
        for (Flow& flow : connection.flows) Move(connection, flow);
      }
      connections_list_.remove_if([](const Connection& connection) {
        return connection.broken || (connection.flows[0].told_end && connection.flows[1].told_end);
      });
    }
  }

  // Until something may move.
  void Wait() {
    std::vector<pollfd> polled = {{wake_.fd(), POLLIN, 0}, {listener_.fd(), POLLIN, 0}};
    absl::Duration wait = absl::Seconds(1);
    const absl::Time now = clock_.Now();
    bool held = false;
    {
      const MutexLock lock(mutex_);
      held = held_;
    }
    for (const Connection& connection : connections_list_) {
      for (const Flow& flow : connection.flows) {
        if (!flow.ended && flow.queued < QueueLimit())
          polled.push_back({flow.from->fd(), POLLIN, 0});
        if (flow.queue.empty() || (held && flow.towards_reader)) continue;
        if (flow.queue.front().due <= now) {
          polled.push_back({flow.to->fd(), POLLOUT, 0});
        } else {
          wait = std::min(wait, flow.queue.front().due - now);
        }
      }
    }
    const timespec timeout = absl::ToTimespec(wait);
    ppoll(polled.data(), polled.size(), &timeout, nullptr);
    uint64_t count = 0;
    while (read(wake_.fd(), &count, sizeof(count)) > 0) {
    }
  }

  void Accept() {
    while (true) {
      File reader(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (reader.fd() < 0) return;
      SetInt(reader, IPPROTO_TCP, TCP_NODELAY, 1);
      Connection& connection = connections_list_.emplace_back();
      connection.reader = std::move(reader);
      connection.source = NewSocket();
      SetInt(connection.source, IPPROTO_TCP, TCP_NODELAY, 1);
      if (options_.delay == absl::ZeroDuration()) {
        SetInt(connection.source, SOL_SOCKET, SO_RCVBUF, kSmallBuffer);
        SetInt(connection.source, IPPROTO_TCP, TCP_MAXSEG, kSmallSegment);
      }
      const sockaddr_in address = Loopback(target_port_);
      if (connect(connection.source.fd(), reinterpret_cast<const sockaddr*>(&address),
                  sizeof(address)) != 0 &&
          errno != EINPROGRESS) {
        connection.broken = true;
      }
      connection.flows[0] = {.from = &connection.reader, .to = &connection.source};
      connection.flows[1] = {
          .from = &connection.source, .to = &connection.reader, .towards_reader = true};
      const MutexLock lock(mutex_);
      ++connections_;
    }
  }

  size_t QueueLimit() const {
    return options_.delay == absl::ZeroDuration() ? kQueueBytes : kDelayedQueueBytes;
  }

  void Move(Connection& connection, Flow& flow) {
    while (!flow.ended && !connection.broken && flow.queued < QueueLimit()) {
      char buffer[kSegmentBytes];
      const ssize_t got = recv(flow.from->fd(), buffer, sizeof(buffer), 0);
      if (got > 0) {
        flow.queue.push_back(
            {Due(flow, static_cast<size_t>(got)), std::string(buffer, static_cast<size_t>(got))});
        flow.queued += static_cast<size_t>(got);
      } else if (got == 0) {
        flow.ended = true;
      } else if (errno == EAGAIN || errno == ENOTCONN) {
        break;
      } else {
        // Reset: the other side gets what came before, then the end.
        flow.ended = true;
      }
    }
    while (!flow.queue.empty() && !connection.broken && flow.queue.front().due <= clock_.Now()) {
      Segment& segment = flow.queue.front();
      const size_t may = Allowed(flow, segment.bytes.size());
      if (may == 0) return;
      const ssize_t sent = send(flow.to->fd(), segment.bytes.data(), may, MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno != EAGAIN && errno != ENOTCONN) connection.broken = true;
        return;
      }
      const auto taken = static_cast<size_t>(sent);
      Count(flow, taken);
      flow.queued -= taken;
      segment.bytes.erase(0, taken);
      if (segment.bytes.empty()) flow.queue.pop_front();
    }
    if (flow.ended && flow.queue.empty() && !std::exchange(flow.told_end, true)) {
      shutdown(flow.to->fd(), SHUT_WR);
      // A process that is gone takes no more requests either.
      if (flow.towards_reader) connection.broken = true;
    }
  }

  absl::Time Due(Flow& flow, size_t bytes) {
    absl::Time due = clock_.Now() + options_.delay;
    if (flow.towards_reader) {
      if (options_.late_share > 0 && std::bernoulli_distribution(options_.late_share)(random_)) {
        due += options_.late_by;
      }
      due = std::max(due, flow.latest_due);
      if (options_.bytes_per_second > 0) {
        due += absl::Seconds(static_cast<double>(bytes) /
                             static_cast<double>(options_.bytes_per_second));
      }
      flow.latest_due = due;
    }
    return due;
  }

  size_t Allowed(const Flow& flow, size_t wanted) {
    if (!flow.towards_reader) return wanted;
    const MutexLock lock(mutex_);
    if (allowed_ == 0) {
      held_ = true;
      changed_.NotifyAll();
    }
    return std::min<uint64_t>(allowed_, wanted);
  }
  void Count(const Flow& flow, size_t bytes) {
    if (!flow.towards_reader) return;
    const MutexLock lock(mutex_);
    forwarded_ += bytes;
    if (allowed_ != UINT64_MAX) allowed_ -= std::min<uint64_t>(allowed_, bytes);
  }

  const uint16_t target_port_;
  const Options options_;
  Clock& clock_ = Clock::Real();
  std::mt19937 random_;
  File listener_;
  File wake_;
  uint16_t port_ = 0;
  std::list<Connection> connections_list_;  // Of the thread.
  std::thread thread_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool ending_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool cutting_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool held_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  uint64_t allowed_ PEERCHUNK_GUARDED_BY(mutex_) = UINT64_MAX;
  uint64_t forwarded_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  uint64_t connections_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
};

FaultProxy::FaultProxy(std::string target, const Options& options) {
  const size_t colon = target.rfind(':');
  Check(target.substr(0, colon) == "127.0.0.1");
  relay_ =
      std::make_unique<Relay>(static_cast<uint16_t>(std::stoi(target.substr(colon + 1))), options);
  address_ = "127.0.0.1:" + std::to_string(relay_->port());
}
FaultProxy::~FaultProxy() = default;

uint64_t FaultProxy::bytes_forwarded() const { return relay_->bytes_forwarded(); }
uint64_t FaultProxy::connections() const { return relay_->connections(); }
void FaultProxy::HoldAfter(uint64_t bytes) { relay_->HoldAfter(bytes); }
bool FaultProxy::AwaitHeld() { return relay_->AwaitHeld(); }
void FaultProxy::Release() { relay_->Release(); }
void FaultProxy::Cut() { relay_->Cut(); }

}  // namespace peerchunk::test
