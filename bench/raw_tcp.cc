// The floor: sendfile on one side, read on the other, nothing in between and nothing checked.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "bench/contender.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

struct Request {
  uint64_t file;
  uint64_t offset;
  uint64_t length;
};

bool ReadExactly(int fd, void* to, size_t size) {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    const ssize_t got = read(fd, at, size);
    if (got <= 0) return false;
    at += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

void Answer(const Samples& samples, File connection) {
  const int one = 1;
  setsockopt(connection.fd(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  std::vector<File> files;
  for (const Sample& sample : samples.files) {
    files.push_back(*File::Open(samples.PathOf(sample), O_RDONLY));
  }
  Request request;
  while (ReadExactly(connection.fd(), &request, sizeof(request))) {
    auto offset = static_cast<off_t>(request.offset);
    for (uint64_t left = request.length; left > 0;) {
      const ssize_t sent = sendfile(connection.fd(), files[request.file].fd(), &offset, left);
      if (sent <= 0) return;
      left -= static_cast<uint64_t>(sent);
    }
  }
}

absl::Status Serve(const Samples& samples, const ServerProcess::Ready& ready) {
  const File listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (bind(listener.fd(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener.fd(), 256) != 0 ||
      getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return ErrnoStatus(errno, "listen");
  }
  ready(ntohs(address.sin_port));
  while (true) {
    const int connection = accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) return ErrnoStatus(errno, "accept");
    std::thread(Answer, samples, File(connection)).detach();
  }
}

// Blocking, one connection for each read that is under way, kept for the next ones.
class RawTcpClient final : public Client {
 public:
  RawTcpClient(const Samples& samples, int port) : samples_(samples), port_(port) {}

  absl::Status ReadAll(const BulkRead& work) override {
    PEERCHUNK_RETURN_IF_ERROR(ConnectUpTo(work.streams));
    File file;
    if (IsFile(work.to)) {
      PEERCHUNK_ASSIGN_OR_RETURN(file, File::Open(work.path, O_RDWR | O_CREAT));
    }
    return InParts(work.sample.size, work.streams, [&](const Part& part) -> absl::Status {
      PEERCHUNK_RETURN_IF_ERROR(Ask(part.index, work.sample, part.offset, part.length));
      std::vector<char> buffer(work.to == Destination::kMemory ? 0 : kMiB);
      for (uint64_t done = 0; done < part.length;) {
        char* const to = buffer.empty() ? &work.memory[part.offset + done] : buffer.data();
        const ssize_t got =
            read(connections_[part.index].fd(), to, std::min<uint64_t>(part.length - done, kMiB));
        if (got <= 0) return ErrnoStatus(errno, "read");
        const auto bytes = static_cast<size_t>(got);
        if (file.is_open())
          PEERCHUNK_RETURN_IF_ERROR(file.WriteAt(part.offset + done, {to, bytes}));
        done += bytes;
      }
      return absl::OkStatus();
    });
  }

  absl::StatusOr<ReadFigures> Read(const RandomReads& reads) override {
    PEERCHUNK_RETURN_IF_ERROR(ConnectUpTo(reads.depth));
    std::vector<std::vector<char>> buffers(reads.depth, std::vector<char>(reads.bytes));
    return ReadOnThreads(reads, [&](int thread, uint64_t offset) {
      return ReadOne(thread, reads, offset, buffers[thread]);
    });
  }

  absl::StatusOr<ReadFigures> ReadUnderBulk(const RandomReads& reads) override {
    RawTcpClient bulk(samples_, port_);
    return ReadDuring([&] { return bulk.ReadAll({.sample = reads.sample}); },
                      [&] { return Read(reads); });
  }

 private:
  absl::Status ConnectUpTo(size_t count) {
    while (connections_.size() < count) {
      PEERCHUNK_ASSIGN_OR_RETURN(const int connection, ConnectTo(port_));
      connections_.emplace_back(connection);
    }
    return absl::OkStatus();
  }

  absl::Status Ask(int connection, const Sample& sample, uint64_t offset, uint64_t length) {
    const auto file = static_cast<uint64_t>(&sample - samples_.files.data());
    const Request request{file, offset, length};
    if (write(connections_[connection].fd(), &request, sizeof(request)) != sizeof(request)) {
      return ErrnoStatus(errno, "write");
    }
    return absl::OkStatus();
  }

  absl::Status ReadOne(int connection, const RandomReads& reads, uint64_t offset,
                       std::vector<char>& buffer) {
    PEERCHUNK_RETURN_IF_ERROR(Ask(connection, reads.sample, offset, reads.bytes));
    if (!ReadExactly(connections_[connection].fd(), buffer.data(), buffer.size())) {
      return ErrnoStatus(errno, "read");
    }
    return absl::OkStatus();
  }

  const Samples& samples_;
  const int port_;
  std::vector<File> connections_;
};

}  // namespace

Contender RawTcp() {
  return {
      .name = kRawTcp,
      .serve =
          [](const Samples& samples) {
            return ServerProcess::Start(
                [&](const ServerProcess::Ready& ready) { return Serve(samples, ready); });
          },
      .connect = [](const Samples& samples, int port) -> absl::StatusOr<std::unique_ptr<Client>> {
        return std::make_unique<RawTcpClient>(samples, port);
      }};
}

}  // namespace peerchunk::bench
