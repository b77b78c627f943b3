// peerchunk: the operator's tool. One file per subcommand; what they share: command.h.
#include <cstdio>
#include <memory>
#include <string>

#include <spdlog/spdlog.h>

#include "base/default_paths.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "peerchunk/base/status.h"

namespace peerchunk::cli {
namespace {

constexpr char kDescription[] =
    "Pauses, resumes, fetches and looks at builds: through a running peerchunkd, or by itself "
    "where\n"
    "a --base is given.";

constexpr char kFooter[] =
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n"
    "--json prints one JSON document on stdout for programs; errors go to stderr either way.";

void AddCommands(CLI::App& app, Invocation& invocation) {
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(kFooter);
  app.set_version_flag("--version", "peerchunk " PEERCHUNK_VERSION);
  app.add_option("--control", invocation.control, "The daemon's control socket or loopback address")
      ->type_name("PATH|IP:PORT")
      ->envname("PEERCHUNK_CONTROL")
      ->capture_default_str();
  app.add_flag("--json", invocation.json, "Print JSON");
  AddPause(app, invocation);
  AddResume(app, invocation);
  AddMount(app, invocation);
  AddUmount(app, invocation);
  AddFetch(app, invocation);
  AddList(app, invocation);
  AddInspect(app, invocation);
  AddVerify(app, invocation);
  AddProbe(app, invocation);
  AddRemove(app, invocation);
  AddWait(app, invocation);
  AddRetry(app, invocation);
  AddSetMetadata(app, invocation);
  AddStatus(app, invocation);
  AddMakeBuild(app, invocation);
}

int Main(int argc, char** argv) {
  Invocation invocation;
  invocation.control = ControlSocketIn(DefaultDataFolder());
  CLI::App app(kDescription, "peerchunk");
  AddCommands(app, invocation);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "peerchunk: %s (see peerchunk --help)\n", error.what());
    return kExitUsage;
  }
  // The library's log lines are for daemons; here an error says it all.
  spdlog::set_level(spdlog::level::off);
  absl::StatusOr<std::unique_ptr<Interrupt>> interrupt = Interrupt::Install();
  if (!interrupt.ok()) {
    std::fprintf(stderr, "peerchunk: %s\n", std::string(interrupt.status().message()).c_str());
    return kExitFailed;
  }
  invocation.interrupted = (*interrupt)->token();
  const absl::Status status = invocation.run();
  if (status.ok()) return 0;
  if (invocation.interrupted.stop_requested()) {
    std::fprintf(stderr, "peerchunk: interrupted%s\n", invocation.when_interrupted.c_str());
    return kExitInterrupted;
  }
  std::fprintf(stderr, "peerchunk: %s\n", std::string(status.message()).c_str());
  return kExitFailed;
}

}  // namespace
}  // namespace peerchunk::cli

int main(int argc, char** argv) { return peerchunk::cli::Main(argc, argv); }
