#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <absl/status/status.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/template/template_cache.h"
#include "peerchunk/v1/sandbox_service.pb.h"

namespace peerchunk::cli {

inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

// What all subcommands share. Owned by main; used by its thread.
struct Invocation {
  std::string control;  // Where the daemon's SandboxService is.
  bool json = false;
  std::stop_token interrupted;        // Requested by SIGINT and SIGTERM.
  std::function<absl::Status()> run;  // Set by the subcommand that was named.
  // What to know of one whose daemon goes on with it all the same; set along with `run`.
  std::string when_interrupted;
};

// Each adds one subcommand to `app`, whose callback sets Invocation::run.
void AddPause(CLI::App& app, Invocation& invocation);
void AddResume(CLI::App& app, Invocation& invocation);
void AddMount(CLI::App& app, Invocation& invocation);
void AddUmount(CLI::App& app, Invocation& invocation);
void AddFetch(CLI::App& app, Invocation& invocation);
void AddList(CLI::App& app, Invocation& invocation);
void AddInspect(CLI::App& app, Invocation& invocation);
void AddVerify(CLI::App& app, Invocation& invocation);
void AddProbe(CLI::App& app, Invocation& invocation);
void AddRemove(CLI::App& app, Invocation& invocation);
void AddWait(CLI::App& app, Invocation& invocation);
void AddRetry(CLI::App& app, Invocation& invocation);
void AddSetMetadata(CLI::App& app, Invocation& invocation);
void AddStatus(CLI::App& app, Invocation& invocation);
void AddMakeBuild(CLI::App& app, Invocation& invocation);

// A required positional argument that must be a build id: a wrong one is a usage error.
CLI::Option* AddBuildId(CLI::App& command, std::string& text);
// A UUID that a validator has let through.
BuildId ToBuildId(const std::string& text);
extern const CLI::Validator kIsBuildId;

// Where a build and its layers lie, as flags.
struct SourceFlags {
  std::string source;
  std::vector<std::string> layer_sources;  // BUILD=ADDRESS

  void AddTo(CLI::App& command);
  v1::SandboxConfig ToConfig(const std::string& build_id) const;
  BuildSources ToSources() const;
};

}  // namespace peerchunk::cli
