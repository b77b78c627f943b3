#include "cli/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "cli/command.h"
#include "peerchunk/base/status.h"

namespace peerchunk::cli {

absl::StatusOr<std::unique_ptr<Interrupt>> Interrupt::Install() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  File signals(signalfd(-1, &set, SFD_CLOEXEC));
  File over(eventfd(0, EFD_CLOEXEC));
  if (!signals.is_open() || !over.is_open()) return ErrnoStatus(errno, "wait for signals");
  std::unique_ptr<Interrupt> interrupt(new Interrupt(std::move(signals), std::move(over)));
  interrupt->watcher_ = std::thread([raw = interrupt.get()] { raw->Watch(); });
  return interrupt;
}

Interrupt::~Interrupt() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(over_.fd(), &one, sizeof(one));
  watcher_.join();
}

void Interrupt::Watch() {
  while (true) {
    pollfd files[] = {{signals_.fd(), POLLIN, 0}, {over_.fd(), POLLIN, 0}};
    if (poll(files, 2, -1) < 0) continue;
    if (files[1].revents & POLLIN) return;
    signalfd_siginfo info;
    if (read(signals_.fd(), &info, sizeof(info)) != sizeof(info)) continue;
    if (!requested_.request_stop()) std::_Exit(kExitInterrupted);
  }
}

}  // namespace peerchunk::cli
