#include "bench/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

std::vector<char*> Arguments(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  return arguments;
}

}  // namespace

absl::StatusOr<pid_t> Fork(const std::function<void()>& child) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    child();
    _exit(1);
  }
  return pid;
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(
    const std::function<absl::Status(const Ready&)>& serve) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  const File reading(ends[0]);
  File writing(ends[1]);
  PEERCHUNK_ASSIGN_OR_RETURN(const pid_t pid, Fork([&] {
                               const absl::Status end = serve([&](int port) {
                                 if (write(ends[1], &port, sizeof(port)) < 0) _exit(1);
                               });
                               std::fprintf(stderr, "bench server: %s\n", end.ToString().c_str());
                             }));
  writing = File();
  std::unique_ptr<ServerProcess> process(new ServerProcess(pid, 0));
  if (read(ends[0], &process->port_, sizeof(int)) != sizeof(int)) {
    return absl::InternalError("the server process ended before it listened");
  }
  return process;
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::StartProgram(
    const std::vector<std::string>& command, int port) {
  PEERCHUNK_ASSIGN_OR_RETURN(const pid_t pid, Fork([&] {
                               execvp(command[0].c_str(), Arguments(command).data());
                               std::perror(command[0].c_str());
                             }));
  std::unique_ptr<ServerProcess> process(new ServerProcess(pid, port));
  for (int tries = 0; tries < 200; ++tries) {
    if (const auto connection = ConnectTo(port); connection.ok()) {
      close(*connection);
      return process;
    }
    usleep(20'000);
  }
  return absl::UnavailableError(command[0] + " did not come up");
}

ServerProcess::~ServerProcess() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

absl::StatusOr<int> FreePort() {
  const File any(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  if (bind(any.fd(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(any.fd(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return ErrnoStatus(errno, "find a free port");
  }
  return ntohs(address.sin_port);
}

absl::StatusOr<int> ConnectTo(int port) {
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(port);
  const int one = 1;
  if (connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    close(connection);
    return ErrnoStatus(error, absl::StrCat("connect to port ", port));
  }
  setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  return connection;
}

absl::StatusOr<ProgramRun> RunProgram(const std::vector<std::string>& command) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  const File reading(ends[0]);
  File writing(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t pid = 0;
  const int error =
      posix_spawnp(&pid, command[0].c_str(), &actions, nullptr, Arguments(command).data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, "start " + command[0]);
  writing = File();
  ProgramRun run;
  char buffer[4096];
  for (ssize_t got = 0; (got = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    run.output.append(buffer, static_cast<size_t>(got));
  }
  int end = 0;
  rusage usage{};
  if (wait4(pid, &end, 0, &usage) < 0) return ErrnoStatus(errno, "wait for " + command[0]);
  if (end != 0) return absl::InternalError(command[0] + " failed: " + run.output);
  run.peak_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
  return run;
}

bool HasProgram(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::string folders = absl::StrCat(path == nullptr ? "" : path, ":/usr/sbin:/usr/bin");
  for (size_t begin = 0; begin < folders.size();) {
    const size_t end = std::min(folders.find(':', begin), folders.size());
    const std::string program = folders.substr(begin, end - begin) + "/" + name;
    if (access(program.c_str(), X_OK) == 0) return true;
    begin = end + 1;
  }
  return false;
}

}  // namespace peerchunk::bench
