#pragma once

#include <signal.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {

// Where the build put the two programs.
#if !defined(PEERCHUNKD_PROGRAM) || !defined(PEERCHUNK_PROGRAM)
#error "link peerchunk_test_programs"
#endif

inline ChildProcess::Spec Peerchunkd(std::vector<std::string> arguments) {
  return {.program = PEERCHUNKD_PROGRAM, .arguments = std::move(arguments)};
}
inline ChildProcess::Spec Peerchunk(std::vector<std::string> arguments) {
  return {.program = PEERCHUNK_PROGRAM, .arguments = std::move(arguments)};
}

// A real peerchunkd on a free loopback port with a control socket in its data folder, started and
// ready. Killed when this goes away.
class DaemonProcess {
 public:
  DaemonProcess(std::string data_folder, const std::string& base,
                const std::vector<std::string>& more = {})
      : data_folder_(std::move(data_folder)) {
    std::vector<std::string> arguments = {"--data-folder", data_folder_, "--base", base,
                                          "--listen",      "127.0.0.1:0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    process_ = std::make_unique<ChildProcess>(Peerchunkd(std::move(arguments)));
    const std::string line = process_->WaitForLine("listening on ");
    address_ = line.substr(0, line.find(' '));
    process_->WaitForLine("ready");
  }

  const std::string& address() const { return address_; }
  std::string control() const { return data_folder_ + "/control.sock"; }
  ChildProcess& process() { return *process_; }

  // SIGTERM, and the exit code.
  int Stop() {
    process_->Signal(SIGTERM);
    return process_->Wait();
  }

  ChildProcess::Spec ToolSpec(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"--control", control()});
    return Peerchunk(std::move(arguments));
  }
  Finished Tool(std::vector<std::string> arguments) const {
    return RunProgram(ToolSpec(std::move(arguments)));
  }
  // With --json; the tool must succeed.
  nlohmann::json Json(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "--json");
    const Finished finished = Tool(std::move(arguments));
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    return nlohmann::json::parse(finished.out, nullptr, /*allow_exceptions=*/false);
  }

 private:
  const std::string data_folder_;
  std::string address_;
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace peerchunk::test
