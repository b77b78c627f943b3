// What asks the daemon about builds or tells it what to do with them: ls, rm, wait, retry,
// set-metadata, status.
#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "base/byte_size.h"
#include "cli/command.h"
#include "cli/control_client.h"
#include "cli/output.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"
#include "peerchunk/template/build_registry.h"

namespace peerchunk::cli {
namespace {

using Stub = v1::SandboxService::Stub;

constexpr absl::Duration kAskEvery = absl::Milliseconds(50);
// In the order in which an upload passes through them.
const std::vector<std::string> kStatesOnTheWay = {"LOCAL", "UPLOADING", "DURABLE"};

absl::Status List(const Invocation& invocation) {
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  PEERCHUNK_ASSIGN_OR_RETURN(const v1::ListBuildsResponse response,
                             client->Call(&Stub::ListBuilds, v1::ListBuildsRequest()));
  if (invocation.json) {
    Json builds = Json::array();
    for (const v1::BuildInfo& build : response.builds()) builds.push_back(ToJson(build));
    PrintJson(Json{{"builds", builds}});
    return absl::OkStatus();
  }
  if (response.builds().empty()) {
    Print("no builds: none was paused or resumed on this node\n");
    return absl::OkStatus();
  }
  Table table({"BUILD", "STATE", "MEMORY", "ROOTFS", "OWN FILES", "MOUNTED AT", "REASON"});
  for (const v1::BuildInfo& build : response.builds()) {
    uint64_t bytes = 0;
    for (const v1::BuildFileInfo& file : build.files()) bytes += file.size();
    const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : text; };
    table.AddRow({build.build_id(), build.state(),
                  build.memfile_size() == 0 ? "-" : HumanByteSize(build.memfile_size()),
                  build.rootfs_size() == 0 ? "-" : HumanByteSize(build.rootfs_size()),
                  HumanByteSize(bytes), or_dash(build.mount_path()), or_dash(build.reason())});
  }
  Print(table.ToString());
  return absl::OkStatus();
}

struct RemoveFlags {
  std::string build;
  bool from_base = false;
  bool discard_only_copy = false;
};

absl::Status Remove(const RemoveFlags& flags, const Invocation& invocation) {
  v1::DeleteBuildRequest request;
  request.set_build_id(flags.build);
  request.set_from_base(flags.from_base);
  request.set_discard_only_copy(flags.discard_only_copy);
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  PEERCHUNK_ASSIGN_OR_RETURN(const v1::DeleteBuildResponse response,
                             client->Call(&Stub::DeleteBuild, request));
  if (invocation.json) {
    PrintJson(Json{{"build_id", flags.build}, {"objects_deleted", response.objects_deleted()}});
  } else if (flags.from_base) {
    Print(absl::StrCat("removed ", flags.build, ": the local copy, and ",
                       response.objects_deleted(), " objects of the base\n"));
  } else {
    Print(absl::StrCat("removed ", flags.build, ": the local copy; the base keeps what it has\n"));
  }
  return absl::OkStatus();
}

struct WaitFlags {
  std::string build;
  std::string state = "DURABLE";
  double timeout_seconds = 0;
};

// Whether a build in `state` has come as far as `goal`, one of kStatesOnTheWay.
bool Reached(const std::string& state, const std::string& goal) {
  const auto from = std::find(kStatesOnTheWay.begin(), kStatesOnTheWay.end(), goal);
  return std::find(from, kStatesOnTheWay.end(), state) != kStatesOnTheWay.end();
}

absl::Status Wait(const WaitFlags& flags, const Invocation& invocation) {
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  v1::GetBuildRequest request;
  request.set_build_id(flags.build);
  Clock& clock = Clock::Real();
  const absl::Time deadline = flags.timeout_seconds > 0
                                  ? clock.Now() + absl::Seconds(flags.timeout_seconds)
                                  : absl::InfiniteFuture();
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const v1::BuildInfo build, client->Call(&Stub::GetBuild, request));
    if (Reached(build.state(), flags.state)) {
      if (invocation.json) {
        PrintJson(ToJson(build));
      } else {
        Print(absl::StrCat(flags.build, " is ", build.state(), "\n"));
      }
      return absl::OkStatus();
    }
    if (build.state() == "FAILED") {
      return absl::FailedPreconditionError(absl::StrCat(flags.build, " is FAILED: ", build.reason(),
                                                        ". Once that is repaired: peerchunk retry ",
                                                        flags.build));
    }
    if (!PausedHere(build)) {
      return absl::FailedPreconditionError(absl::StrCat(
          flags.build, " was paused on another node, which uploads it: ask that node's daemon"));
    }
    if (clock.Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(flags.build, " is still ", build.state(),
                       build.reason().empty() ? "" : ": " + build.reason()));
    }
    if (!clock.SleepUntil(clock.Now() + kAskEvery, invocation.interrupted)) {
      return absl::CancelledError("interrupted");
    }
  }
}

absl::Status Retry(const std::string& build, const Invocation& invocation) {
  v1::RetryBuildRequest request;
  request.set_build_id(build);
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  PEERCHUNK_ASSIGN_OR_RETURN(const v1::BuildInfo info, client->Call(&Stub::RetryBuild, request));
  if (invocation.json) {
    PrintJson(ToJson(info));
  } else {
    Print(absl::StrCat(build, " is ", info.state(), "; its upload is queued again\n"));
  }
  return absl::OkStatus();
}

absl::Status SetMetadata(const std::string& build, const std::string& path,
                         const Invocation& invocation) {
  const absl::StatusOr<File> file = File::Open(path, O_RDONLY);
  if (!file.ok()) return Annotate(file.status(), path);
  PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > kMaxMetadataBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " has ", size, " bytes; a metadata.json has at most ", kMaxMetadataBytes));
  }
  v1::ReplaceMetadataRequest request;
  request.set_build_id(build);
  request.mutable_metadata()->resize(size);
  PEERCHUNK_RETURN_IF_ERROR(file->ReadAt(0, absl::MakeSpan(*request.mutable_metadata())));
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  PEERCHUNK_ASSIGN_OR_RETURN(const v1::BuildInfo info,
                             client->Call(&Stub::ReplaceMetadata, request));
  if (invocation.json) {
    PrintJson(ToJson(info));
  } else {
    Print(absl::StrCat("metadata.json of ", build, " replaced; its upload is queued\n"));
  }
  return absl::OkStatus();
}

absl::Status Status(bool metrics, const Invocation& invocation) {
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  PEERCHUNK_ASSIGN_OR_RETURN(const v1::NodeStatus status,
                             client->Call(&Stub::GetStatus, v1::GetStatusRequest()));
  if (invocation.json) {
    Json json = {{"version", status.version()},         {"control", invocation.control},
                 {"data_folder", status.data_folder()}, {"base", status.base()},
                 {"plaintext", status.plaintext()},     {"draining", status.draining()}};
    json["listen"] = status.listen_addresses();
    json["startup_report"] = status.startup_report();
    json["mounts"] = status.mount_paths();
    json["metrics"] = Json::array();
    for (const v1::MetricSample& sample : status.metrics()) {
      Json labels = Json::object();
      for (const auto& [name, value] : sample.labels()) labels[name] = value;
      json["metrics"].push_back(
          {{"name", sample.name()}, {"labels", labels}, {"value", sample.value()}});
    }
    PrintJson(json);
    return absl::OkStatus();
  }
  std::string text =
      absl::StrCat("peerchunkd ", status.version(), status.draining() ? " (draining)" : "", "\n");
  for (const std::string& address : status.listen_addresses()) {
    absl::StrAppend(&text, "listens  ", address, status.plaintext() ? " (plaintext)" : " (mTLS)",
                    "\n");
  }
  absl::StrAppend(&text, "control  ", invocation.control, "\ndata     ", status.data_folder(),
                  "\nbase     ", status.base(), "\n");
  for (const std::string& path : status.mount_paths())
    absl::StrAppend(&text, "mount    ", path, "\n");
  for (const std::string& line : status.startup_report()) {
    absl::StrAppend(&text, "found    ", line, "\n");
  }
  if (metrics) {
    for (const v1::MetricSample& sample : status.metrics()) {
      std::string labels;
      for (const auto& [name, value] : sample.labels()) {
        absl::StrAppend(&labels, labels.empty() ? "{" : ",", name, "=\"", value, "\"");
      }
      absl::StrAppend(&text, sample.name(), labels, labels.empty() ? " " : "} ", sample.value(),
                      "\n");
    }
  }
  Print(text);
  return absl::OkStatus();
}

}  // namespace

void AddList(CLI::App& app, Invocation& invocation) {
  app.add_subcommand("ls", "List the builds that were paused or resumed on the daemon's node")
      ->callback([&invocation] { invocation.run = [&invocation] { return List(invocation); }; });
}

void AddRemove(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<RemoveFlags>();
  CLI::App* const command = app.add_subcommand(
      "rm", "Remove the local copy of a build; refused while it is the only one");
  AddBuildId(*command, flags->build);
  command->add_flag("--from-base", flags->from_base,
                    "Delete its objects in the base too; refused while a known build needs them");
  command->add_flag("--discard-only-copy", flags->discard_only_copy,
                    "Even when the build is not durable: it is lost then");
  command->callback([flags, &invocation] {
    invocation.when_interrupted = "; what is deleted by now stays deleted: see peerchunk ls";
    invocation.run = [flags, &invocation] { return Remove(*flags, invocation); };
  });
}

void AddWait(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<WaitFlags>();
  CLI::App* const command = app.add_subcommand("wait", "Wait until a build is durable");
  AddBuildId(*command, flags->build);
  command->add_option("--state", flags->state, "The state to wait for, or one after it")
      ->check(CLI::IsMember(kStatesOnTheWay))
      ->capture_default_str();
  command->add_option("--timeout", flags->timeout_seconds, "Give up after this long; 0: never")
      ->type_name("SECONDS")
      ->check(CLI::NonNegativeNumber);
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Wait(*flags, invocation); };
  });
}

void AddRetry(CLI::App& app, Invocation& invocation) {
  const auto build = std::make_shared<std::string>();
  CLI::App* const command = app.add_subcommand("retry", "Try the upload of a FAILED build again");
  AddBuildId(*command, *build);
  command->callback([build, &invocation] {
    invocation.run = [build, &invocation] { return Retry(*build, invocation); };
  });
}

void AddSetMetadata(CLI::App& app, Invocation& invocation) {
  const auto build = std::make_shared<std::string>();
  const auto path = std::make_shared<std::string>();
  CLI::App* const command = app.add_subcommand(
      "set-metadata", "Replace metadata.json of a build that was paused on the daemon's node");
  AddBuildId(*command, *build);
  command->add_option("file", *path, "The new metadata.json")->required()->type_name("FILE");
  command->callback([build, path, &invocation] {
    invocation.run = [build, path, &invocation] { return SetMetadata(*build, *path, invocation); };
  });
}

void AddStatus(CLI::App& app, Invocation& invocation) {
  const auto metrics = std::make_shared<bool>(false);
  CLI::App* const command =
      app.add_subcommand("status", "Show the daemon: addresses, base, mounts");
  command->add_flag("--metrics", *metrics, "Its counters too");
  command->callback([metrics, &invocation] {
    invocation.run = [metrics, &invocation] { return Status(*metrics, invocation); };
  });
}

}  // namespace peerchunk::cli
