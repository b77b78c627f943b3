#include "node/socket_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <charconv>
#include <cstring>

#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

absl::Status NotAnAddress(std::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", AbslView(text),
                   "' is not a numeric address and port, such as 127.0.0.1:7070 or [::1]:7070"));
}

absl::Status BindFailure(int error, const std::string& address) {
  switch (error) {
    case EADDRINUSE:
      return absl::AlreadyExistsError(absl::StrCat("cannot listen on ", address,
                                                   ": another process does (ss -ltnp shows which). "
                                                   "Stop it, or choose another address; port 0 "
                                                   "takes any free one"));
    case EADDRNOTAVAIL:
      return absl::InvalidArgumentError(
          absl::StrCat("cannot listen on ", address, ": no interface of this machine has it"));
    case EACCES:
      return absl::PermissionDeniedError(absl::StrCat(
          "cannot listen on ", address, ": not allowed; choose a port from 1024 upwards"));
    default:
      return ErrnoStatus(error, "listen on " + address);
  }
}

}  // namespace

absl::StatusOr<ListenAddress> ListenAddress::Parse(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return NotAnAddress(text);
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  uint16_t port = 0;
  const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || rest != digits.data() + digits.size()) return NotAnAddress(text);
  const bool v6 = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (v6) host = host.substr(1, host.size() - 2);
  unsigned char ip[16];
  const int family = v6 ? AF_INET6 : AF_INET;
  if (inet_pton(family, std::string(host).c_str(), ip) != 1) return NotAnAddress(text);
  char canonical[INET6_ADDRSTRLEN];
  inet_ntop(family, ip, canonical, sizeof(canonical));
  return ListenAddress(canonical, v6, port);
}

std::string ListenAddress::WithPort(uint16_t port) const {
  return v6_ ? absl::StrCat("[", host_, "]:", port) : absl::StrCat(host_, ":", port);
}

bool ListenAddress::is_loopback() const { return v6_ ? host_ == "::1" : host_.starts_with("127."); }

absl::Status ListenAddress::CheckFree() const {
  sockaddr_storage address{};
  socklen_t length = 0;
  if (v6_) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(address);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(port_);
    inet_pton(AF_INET6, host_.c_str(), &in6.sin6_addr);
    length = sizeof(in6);
  } else {
    auto& in = reinterpret_cast<sockaddr_in&>(address);
    in.sin_family = AF_INET;
    in.sin_port = htons(port_);
    inet_pton(AF_INET, host_.c_str(), &in.sin_addr);
    length = sizeof(in);
  }
  const File socket(::socket(v6_ ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.is_open()) return BindFailure(errno, ToString());
  // As gRPC does it: what an earlier process left in TIME_WAIT is no obstacle.
  const int on = 1;
  setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (v6_) setsockopt(socket.fd(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  if (bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      listen(socket.fd(), 1) != 0) {
    return BindFailure(errno, ToString());
  }
  return absl::OkStatus();
}

absl::StatusOr<ControlAddress> ControlAddress::Parse(std::string_view text) {
  constexpr std::string_view kScheme = "unix:";
  std::string_view path = text;
  if (path.starts_with(kScheme)) path.remove_prefix(kScheme.size());
  if (path.starts_with('/')) {
    if (path.size() >= sizeof(sockaddr_un::sun_path)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "control socket '", AbslView(path), "': a socket's path has at most ",
          sizeof(sockaddr_un::sun_path) - 1, " characters; give a shorter one with --control"));
    }
    return ControlAddress(std::string(path), std::string(path));
  }
  const absl::StatusOr<ListenAddress> address = ListenAddress::Parse(text);
  if (!address.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("control address '", AbslView(text),
                     "' is neither the absolute path of a unix socket nor a loopback IP:PORT"));
  }
  if (!address->is_loopback()) {
    return absl::InvalidArgumentError(absl::StrCat("control address ", address->ToString(),
                                                   " is not on loopback: whoever reaches it can "
                                                   "read local files and delete builds. Use a unix "
                                                   "socket, or a loopback address"));
  }
  return ControlAddress(address->ToString(), "");
}

std::string ControlAddress::target() const {
  if (is_unix()) return "unix:" + path_;
  return text_;
}

}  // namespace peerchunk
