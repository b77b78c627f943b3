#include "tests/support/traced_child.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

namespace peerchunk::test {
namespace {

constexpr int kCannotTrace = 100;
constexpr int kSystemCallStop = SIGTRAP | 0x80;

}  // namespace

bool TracedChild::Possible() {
  return Run([] {}, [] { return 0; }, 1, [] { return true; }).exit_code == 0;
}

TracedChild::Result TracedChild::Run(const std::function<void()>& prepare,
                                     const std::function<int()>& body, int at,
                                     const std::function<bool()>& at_call) {
  const pid_t child = fork();
  if (child == 0) {
    prepare();
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(kCannotTrace);
    raise(SIGSTOP);
    _exit(body());  // No exit handlers: they belong to the parent.
  }
  Result result;
  int state = 0;
  int calls = 0;
  bool inside = false;
  waitpid(child, &state, 0);
  if (WIFSTOPPED(state)) {
    ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  }
  while (WIFSTOPPED(state)) {
    if (WSTOPSIG(state) == kSystemCallStop) {
      inside = !inside;
      if (inside && ++calls == at) {
        result.reached = true;
        if (!at_call()) kill(child, SIGKILL);
      }
    }
    ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    waitpid(child, &state, 0);
  }
  if (WIFEXITED(state)) result.exit_code = WEXITSTATUS(state);
  return result;
}

}  // namespace peerchunk::test
