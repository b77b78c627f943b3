#pragma once

#include <functional>

namespace peerchunk::test {

// A child process that stands still in front of one of its system calls, so that a test can kill it
// there or change the world under it: the way to visit every state between two steps of code that
// works on files. Call from a process with one thread.
class TracedChild {
 public:
  struct Result {
    bool reached = false;  // It came to that system call.
    int exit_code = -1;    // -1 when it was killed.
  };

  // False where tracing is not allowed (some containers): skip the test.
  static bool Possible();

  // Forks; the child runs `prepare`, then, counted, `body`, and exits with what it returns (0 to
  // 99). In front of its system call number `at` (from 1) runs `at_call` in the parent: false kills
  // the child.
  static Result Run(const std::function<void()>& prepare, const std::function<int()>& body, int at,
                    const std::function<bool()>& at_call);
};

}  // namespace peerchunk::test
