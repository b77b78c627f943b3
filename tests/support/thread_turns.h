#pragma once

#include <sched.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace peerchunk::test {

// What the scheduler knows of a thread; see sched_setattr(2).
struct ThreadTurns {
  uint32_t size = 0;
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime_ns = 0;  // Of a turn; 0: this kernel does not tell, all have the same.
  uint64_t deadline = 0;
  uint64_t period = 0;
};

// Of the thread `tid`, 0: of this one.
inline ThreadTurns TurnsOf(pid_t tid) {
  ThreadTurns turns;
  syscall(SYS_sched_getattr, tid, &turns, sizeof(turns), 0);
  return turns;
}

// Linux before 6.12 gives all threads turns of one length.
inline bool TurnsCanDiffer() { return TurnsOf(0).runtime_ns != 0; }

// The length of the turns of a process's threads, in nanoseconds, by the threads' names without the
// number behind the last '-'. Threads of one name that differ show as 1.
inline std::map<std::string, uint64_t> TurnsByThreadName(const std::string& pid = "self") {
  std::map<std::string, uint64_t> turns;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + pid + "/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    name = name.substr(0, name.rfind('-'));
    const uint64_t turn = TurnsOf(std::atoi(task.path().filename().c_str())).runtime_ns;
    const auto [found, is_new] = turns.emplace(name, turn);
    if (!is_new && found->second != turn) found->second = 1;
  }
  return turns;
}

}  // namespace peerchunk::test
