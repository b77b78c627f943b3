// The floor: sendfile on one side, read on the other, nothing in between.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>
#include <vector>

#include "bench/contender.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

struct Request {
  uint64_t offset;
  uint64_t length;
};

bool ReadExactly(int fd, void* to, size_t size) {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    const ssize_t got = read(fd, at, size);
    if (got <= 0) return false;
    at += got;
    size -= got;
  }
  return true;
}

void Answer(int connection, const std::string& path) {
  const int one = 1;
  setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  Request request;
  while (ReadExactly(connection, &request, sizeof(request))) {
    off_t offset = request.offset;
    uint64_t left = request.length;
    while (left > 0) {
      const ssize_t sent = sendfile(connection, file, &offset, left);
      if (sent <= 0) break;
      left -= sent;
    }
  }
  close(file);
  close(connection);
}

void Serve(const std::string& path, const std::function<void(int)>& ready) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener, 128) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return;
  }
  ready(ntohs(address.sin_port));
  while (true) {
    const int connection = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection >= 0) std::thread(Answer, connection, path).detach();
  }
}

class RawTcp final : public Contender {
 public:
  RawTcp(const Sample& sample, std::unique_ptr<ServerProcess> server)
      : sample_(sample), server_(std::move(server)), buffer_(kMiB) {}
  ~RawTcp() override {
    for (const int fd : connections_) close(fd);
  }

  std::string name() const override { return "raw TCP (sendfile)"; }

  absl::Status ReadAll() override {
    PEERCHUNK_RETURN_IF_ERROR(ConnectUpTo(1));
    const Request request{0, sample_.size};
    if (write(connections_[0], &request, sizeof(request)) != sizeof(request)) {
      return ErrnoStatus(errno, "write");
    }
    for (uint64_t left = sample_.size; left > 0;) {
      const ssize_t got =
          read(connections_[0], buffer_.data(), std::min<uint64_t>(left, buffer_.size()));
      if (got <= 0) return ErrnoStatus(errno, "read");
      left -= got;
    }
    return absl::OkStatus();
  }

  // Blocking, one connection for each read that is under way.
  absl::Status ReadPages(uint64_t count, int depth,
                         const std::function<uint64_t()>& next) override {
    PEERCHUNK_RETURN_IF_ERROR(ConnectUpTo(depth));
    std::vector<std::vector<uint64_t>> offsets(depth);
    for (uint64_t i = 0; i < count; ++i) offsets[i % depth].push_back(next());
    std::vector<std::thread> threads;
    std::atomic<bool> failed{false};
    for (int i = 0; i < depth; ++i) {
      threads.emplace_back([&, i] {
        char page[kPageBytes];
        for (const uint64_t offset : offsets[i]) {
          const Request request{offset, kPageBytes};
          if (write(connections_[i], &request, sizeof(request)) != sizeof(request) ||
              !ReadExactly(connections_[i], page, sizeof(page))) {
            failed = true;
            return;
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    return failed ? absl::InternalError("a raw read failed") : absl::OkStatus();
  }

 private:
  absl::Status ConnectUpTo(size_t count) {
    while (connections_.size() < count) {
      const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = htons(server_->port());
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
        const int error = errno;
        close(fd);
        return ErrnoStatus(error, "connect");
      }
      const int one = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
      connections_.push_back(fd);
    }
    return absl::OkStatus();
  }

  const Sample sample_;
  const std::unique_ptr<ServerProcess> server_;
  std::vector<int> connections_;
  std::vector<char> buffer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Contender>> StartRawTcp(const Sample& sample) {
  PEERCHUNK_ASSIGN_OR_RETURN(
      auto server, ServerProcess::Start([&](const auto& ready) { Serve(sample.path, ready); }));
  return std::make_unique<RawTcp>(sample, std::move(server));
}

}  // namespace peerchunk::bench
