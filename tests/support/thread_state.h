#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace peerchunk::test {

// True while the thread `tid` of this process sleeps in the system call `number` (SYS_...).
inline bool SleepsIn(pid_t tid, long number) {
  // "running", or the number of the call and its arguments.
  std::ifstream state("/proc/self/task/" + std::to_string(tid) + "/syscall");
  std::string call;
  return (state >> call) && call != "running" && std::atol(call.c_str()) == number;
}

}  // namespace peerchunk::test
