#include "daemon/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

#include "peerchunk/base/status.h"

namespace peerchunk {

absl::StatusOr<Signals> Signals::Block() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return ErrnoStatus(errno, "block signals");
  signal(SIGPIPE, SIG_IGN);
  File signals(signalfd(-1, &set, SFD_CLOEXEC));
  if (!signals.is_open()) return ErrnoStatus(errno, "signalfd");
  File wake(eventfd(0, EFD_CLOEXEC));
  if (!wake.is_open()) return ErrnoStatus(errno, "eventfd");
  return Signals(std::move(signals), std::move(wake));
}

Signals::Event Signals::Wait() {
  while (true) {
    pollfd files[] = {{signals_.fd(), POLLIN, 0}, {wake_.fd(), POLLIN, 0}};
    if (poll(files, 2, -1) < 0) continue;
    if (files[0].revents & POLLIN) {
      signalfd_siginfo info;
      if (read(signals_.fd(), &info, sizeof(info)) == sizeof(info)) return Event::kSignal;
    }
    if (files[1].revents & POLLIN) {
      uint64_t count = 0;
      if (read(wake_.fd(), &count, sizeof(count)) == sizeof(count)) return Event::kWoken;
    }
  }
}

void Signals::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.fd(), &one, sizeof(one));
}

}  // namespace peerchunk
