#include "bench/contender.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "peerchunk/base/status.h"

namespace peerchunk::bench {

absl::Status Contender::ReadPages(uint64_t, int, const std::function<uint64_t()>&) {
  return absl::UnimplementedError(name() + " has no reads of pages");
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(
    const std::function<void(const std::function<void(int)>&)>& serve) {
  int ends[2];
  if (pipe(ends) != 0) return ErrnoStatus(errno, "pipe");
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[0]);
    serve([&](int port) {
      if (write(ends[1], &port, sizeof(port)) != sizeof(port)) _exit(1);
      close(ends[1]);
    });
    _exit(1);
  }
  close(ends[1]);
  int port = 0;
  const bool told = read(ends[0], &port, sizeof(port)) == sizeof(port);
  close(ends[0]);
  std::unique_ptr<ServerProcess> process(new ServerProcess(pid, port));
  if (!told) return absl::InternalError("the server process ended before it listened");
  return process;
}

ServerProcess::~ServerProcess() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

}  // namespace peerchunk::bench
