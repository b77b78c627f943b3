// peerchunkd: one node as a program. What it can be told: options.h. How it is put together:
// daemon.h.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include <spdlog/spdlog.h>

#include "daemon/daemon.h"
#include "daemon/options.h"
#include "daemon/signals.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/node/tune_process.h"

namespace peerchunk {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitNotDurable = 3;

int Report(const Daemon& daemon) {
  const std::vector<std::string> left = daemon.NotDurable();
  if (left.empty()) {
    std::printf("leaving: every build is durable\n");
    return EXIT_SUCCESS;
  }
  std::printf("leaving: %zu not durable; kept, and uploaded at the next start on this folder\n",
              left.size());
  for (const std::string& line : left) std::printf("not durable: %s\n", line.c_str());
  return kExitNotDurable;
}

// While it lives, a signal ends the process at once: what goes on meanwhile may take as long as a
// disk or a bucket does. That loses nothing: what is kept of a build is on disk.
class LeavesAtSignal {
 public:
  LeavesAtSignal(Signals& signals, int exit_code)
      : signals_(signals), waits_([this, exit_code] {
          if (signals_.Wait() == Signals::Event::kSignal) std::_Exit(exit_code);
        }) {}
  ~LeavesAtSignal() {
    signals_.Wake();
    waits_.join();
  }
  LeavesAtSignal(const LeavesAtSignal&) = delete;
  LeavesAtSignal& operator=(const LeavesAtSignal&) = delete;

 private:
  Signals& signals_;
  std::thread waits_;
};

absl::StatusOr<std::unique_ptr<Daemon>> Start(const DaemonOptions& options, Signals& signals) {
  const LeavesAtSignal impatient(signals, kExitFailed);
  return Daemon::Start(options);
}

int Serve(const DaemonOptions& options, Signals& signals) {
  absl::StatusOr<std::unique_ptr<Daemon>> started = Start(options, signals);
  absl::Status ready = started.status();
  if (ready.ok()) ready = (*started)->WriteReadyFile();
  if (!ready.ok()) {
    std::fprintf(stderr, "peerchunkd: could not start: %s\n", std::string(ready.message()).c_str());
    return kExitFailed;
  }
  Daemon& daemon = **started;
  std::printf("peerchunkd %s\n", PEERCHUNK_VERSION);
  for (const std::string& line : daemon.Greeting()) std::printf("%s\n", line.c_str());
  std::printf("ready\n");
  std::fflush(stdout);

  signals.Wait();
  std::printf("draining for up to %s: no new pauses; a second signal leaves at once\n",
              absl::FormatDuration(options.drain_timeout).c_str());
  std::fflush(stdout);
  std::thread drain([&] {
    daemon.Drain(Clock::Real().Now() + options.drain_timeout);
    signals.Wake();
  });
  const Signals::Event event = signals.Wait();
  daemon.RemoveReadyFile();
  const int exit_code = Report(daemon);
  std::fflush(stdout);
  const LeavesAtSignal impatient(signals, exit_code);
  daemon.Unmount();
  if (event == Signals::Event::kSignal) std::_Exit(exit_code);
  drain.join();
  *started = nullptr;
  return exit_code;
}

std::optional<std::string> FromEnvironment(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::make_optional<std::string>(value);
}

int Main(int argc, char** argv) {
  const absl::StatusOr<DaemonCommand> command =
      ParseDaemonCommand(std::vector<std::string>(argv + 1, argv + argc), FromEnvironment);
  if (!command.ok()) {
    std::fprintf(stderr, "peerchunkd: %s\n", std::string(command.status().message()).c_str());
    return kExitUsage;
  }
  if (command->text) {
    std::fputs(command->text->c_str(), stdout);
    return EXIT_SUCCESS;
  }
  TuneProcess();
  absl::StatusOr<Signals> signals = Signals::Block();
  if (!signals.ok()) {
    std::fprintf(stderr, "peerchunkd: %s\n", std::string(signals.status().message()).c_str());
    return kExitFailed;
  }
  spdlog::set_level(spdlog::level::from_str(
      command->options.log_level == "error" ? "err" : command->options.log_level));
  return Serve(command->options, *signals);
}

}  // namespace
}  // namespace peerchunk

int main(int argc, char** argv) { return peerchunk::Main(argc, argv); }
