#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <absl/time/time.h>

#include "peerchunk/base/file.h"

namespace peerchunk::test {

// A program run by a test. Killed and reaped when this goes away, so nothing outlives a test that
// fails. Every wait has a watchdog, after which the test aborts with what the program had printed.
// Used by one thread.
class ChildProcess {
 public:
  struct Spec {
    std::string program;
    std::vector<std::string> arguments;
    std::map<std::string, std::string> environment;  // On top of the test's own.
  };
  explicit ChildProcess(const Spec& spec);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  // Waits until the program has blocked `signal`, so that it is no longer its end.
  void AwaitBlocked(int signal) const;
  // Waits for a line of stdout that begins with `prefix`, and returns the rest of it.
  std::string WaitForLine(const std::string& prefix);
  // Waits for the end. The exit code, or 128 + the signal that ended it.
  int Wait();

  // What was read so far; everything after Wait.
  const std::string& out() const { return out_; }
  const std::string& err() const { return err_; }

 private:
  // Reads what comes until `until` says so, or the program has closed both pipes.
  template <typename Until>
  void Pump(const Until& until);
  [[noreturn]] void GiveUp(const std::string& what) const;

  const std::string name_;
  pid_t pid_ = -1;
  bool reaped_ = false;
  File out_pipe_;
  File err_pipe_;
  std::string out_;
  std::string err_;
  size_t searched_ = 0;  // Lines of out_ that WaitForLine has passed.
};

// The exit code and the output of a program that runs to its end.
struct Finished {
  int exit_code = 0;
  std::string out;
  std::string err;
};
Finished RunProgram(const ChildProcess::Spec& spec);

}  // namespace peerchunk::test
