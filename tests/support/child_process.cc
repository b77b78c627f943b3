#include "tests/support/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace peerchunk::test {
namespace {

constexpr std::chrono::seconds kWatchdog{240};

struct Pipe {
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) std::abort();
    read_end = File(ends[0]);
    write_end = File(ends[1]);
  }
  File read_end;
  File write_end;
};

// Takes what is there; false at the end of the pipe.
bool Take(const File& pipe, std::string& into) {
  char buffer[4096];
  const ssize_t got = read(pipe.fd(), buffer, sizeof(buffer));
  if (got > 0) into.append(buffer, static_cast<size_t>(got));
  return got > 0 || (got < 0 && errno == EINTR);
}

}  // namespace

ChildProcess::ChildProcess(const Spec& spec) : name_(spec.program) {
  Pipe out;
  Pipe err;
  std::vector<std::string> words = {spec.program};
  words.insert(words.end(), spec.arguments.begin(), spec.arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<std::string> settings;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string name(*entry, strchrnul(*entry, '='));
    if (!spec.environment.contains(name)) settings.emplace_back(*entry);
  }
  for (const auto& [name, value] : spec.environment) settings.push_back(name + "=" + value);
  std::vector<char*> envp;
  for (std::string& setting : settings) envp.push_back(setting.data());
  envp.push_back(nullptr);

  pid_ = fork();
  if (pid_ < 0) std::abort();
  if (pid_ == 0) {  // Only calls that are safe after fork of a threaded process.
    dup2(out.write_end.fd(), STDOUT_FILENO);
    dup2(err.write_end.fd(), STDERR_FILENO);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  out_pipe_ = std::move(out.read_end);
  err_pipe_ = std::move(err.read_end);
}

ChildProcess::~ChildProcess() {
  if (reaped_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void ChildProcess::Signal(int signal) const { kill(pid_, signal); }

void ChildProcess::AwaitBlocked(int signal) const {
  const std::string status = "/proc/" + std::to_string(pid_) + "/status";
  while (true) {
    std::ifstream lines(status);
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("SigBlk:")) continue;
      if ((std::stoull(line.substr(7), nullptr, 16) >> (signal - 1) & 1) != 0) return;
    }
    sched_yield();
  }
}

template <typename Until>
void ChildProcess::Pump(const Until& until) {
  const auto deadline = std::chrono::steady_clock::now() + kWatchdog;
  bool out_open = true;
  bool err_open = true;
  while (!until() && (out_open || err_open)) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd pipes[] = {{out_open ? out_pipe_.fd() : -1, POLLIN, 0},
                      {err_open ? err_pipe_.fd() : -1, POLLIN, 0}};
    if (left.count() <= 0 || poll(pipes, 2, static_cast<int>(left.count())) == 0) {
      GiveUp("nothing more came");
    }
    if (pipes[0].revents != 0) out_open = Take(out_pipe_, out_);
    if (pipes[1].revents != 0) err_open = Take(err_pipe_, err_);
  }
}

void ChildProcess::GiveUp(const std::string& what) const {
  std::fprintf(stderr, "%s: %s for %lld s\nstdout:\n%s\nstderr:\n%s\n", name_.c_str(), what.c_str(),
               static_cast<long long>(kWatchdog.count()), out_.c_str(), err_.c_str());
  kill(pid_, SIGKILL);
  std::abort();
}

std::string ChildProcess::WaitForLine(const std::string& prefix) {
  std::string found;
  bool seen = false;
  Pump([&] {
    for (size_t end; !seen && (end = out_.find('\n', searched_)) != std::string::npos;
         searched_ = end + 1) {
      const std::string line = out_.substr(searched_, end - searched_);
      seen = line.starts_with(prefix);
      if (seen) found = line.substr(prefix.size());
    }
    return seen;
  });
  if (!seen) GiveUp("ended without a line '" + prefix + "...'");
  return found;
}

int ChildProcess::Wait() {
  Pump([] { return false; });
  int status = 0;
  waitpid(pid_, &status, 0);
  reaped_ = true;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Finished RunProgram(const ChildProcess::Spec& spec) {
  ChildProcess child(spec);
  const int exit_code = child.Wait();
  return {.exit_code = exit_code, .out = child.out(), .err = child.err()};
}

}  // namespace peerchunk::test
