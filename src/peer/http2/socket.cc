#include "peer/http2/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <system_error>
#include <utility>

#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"

namespace peerchunk::http2 {
namespace {

// The network's errors mean "try elsewhere", whatever their number.
absl::Status NetworkError(int error, std::string_view what) {
  return absl::UnavailableError(
      absl::StrCat(AbslView(what), ": ", std::generic_category().message(error)));
}

bool WouldBlock(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

// "10.1.2.3:7070" or "[fd00::1]:7070", which an AddressPolicy has parsed before.
absl::StatusOr<SocketAddress> Parse(const std::string& text) {
  SocketAddress address;
  const size_t colon = text.rfind(':');
  uint16_t port = 0;
  std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  if (text[0] == '[') {
    auto* const v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.size = sizeof(*v6);
    if (inet_pton(AF_INET6, text.substr(1, colon - 2).c_str(), &v6->sin6_addr) == 1) return address;
  } else {
    auto* const v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.size = sizeof(*v4);
    if (inet_pton(AF_INET, text.substr(0, colon).c_str(), &v4->sin_addr) == 1) return address;
  }
  return absl::InvalidArgumentError(absl::StrCat(text, " is no address"));
}

class TcpSocket final : public Socket {
 public:
  TcpSocket(File file, std::string address, bool connecting)
      : file_(std::move(file)), address_(std::move(address)), connecting_(connecting) {}

  int fd() const override { return file_.fd(); }

  absl::StatusOr<bool> Open() override {
    if (!connecting_) return true;
    pollfd ready{.fd = file_.fd(), .events = POLLOUT, .revents = 0};
    if (poll(&ready, 1, 0) <= 0) return false;
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(file_.fd(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error != 0) return NetworkError(error, "connect to " + address_);
    connecting_ = false;
    return true;
  }
  short OpenEvents() const override { return POLLOUT; }

  absl::StatusOr<size_t> Read(absl::Span<char> first, absl::Span<char> second) override {
    const iovec to[] = {{first.data(), first.size()}, {second.data(), second.size()}};
    const ssize_t got = readv(file_.fd(), to, second.empty() ? 1 : 2);
    if (got > 0) return static_cast<size_t>(got);
    if (got < 0 && WouldBlock(errno)) return 0;
    if (got == 0) return absl::UnavailableError(address_ + " closed the connection");
    return NetworkError(errno, "read from " + address_);
  }

  absl::StatusOr<size_t> Write(std::string_view bytes) override {
    const ssize_t sent = send(file_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return static_cast<size_t>(sent);
    if (WouldBlock(errno)) return 0;
    return NetworkError(errno, "write to " + address_);
  }

  void Shutdown() override { shutdown(file_.fd(), SHUT_RDWR); }

 private:
  const File file_;
  const std::string address_;
  bool connecting_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Socket>> DialTcp(const PeerAddress& address) {
  PEERCHUNK_ASSIGN_OR_RETURN(const SocketAddress to, Parse(address.ToString()));
  File file(socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (!file.is_open()) return NetworkError(errno, "make a socket");
  const int one = 1;
  const unsigned limit_ms = kUnconfirmedLimitMs;
  setsockopt(file.fd(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  setsockopt(file.fd(), IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof(limit_ms));
  const int result = connect(file.fd(), reinterpret_cast<const sockaddr*>(&to.storage), to.size);
  if (result != 0 && errno != EINPROGRESS) {
    return NetworkError(errno, "connect to " + address.ToString());
  }
  return std::make_unique<TcpSocket>(std::move(file), address.ToString(), result != 0);
}

}  // namespace peerchunk::http2
