#include "tests/support/black_hole.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdlib>

namespace peerchunk::test {

BlackHole::BlackHole() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener_.fd(), raw, length) != 0 || listen(listener_.fd(), 0) != 0 ||
      getsockname(listener_.fd(), raw, &length) != 0) {
    std::abort();
  }
  address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  // The first connection that is not made at once shows that the queue is full.
  while (true) {
    File& caller =
        waiting_.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    connect(caller.fd(), raw, length);
    pollfd made{caller.fd(), POLLOUT, 0};
    if (poll(&made, 1, 100) == 0) return;
    if (waiting_.size() > 64) std::abort();
  }
}

}  // namespace peerchunk::test
