#include <memory>

#include "base/default_paths.h"
#include "cli/command.h"
#include "cli/control_client.h"
#include "cli/output.h"
#include "peerchunk/base/status.h"

namespace peerchunk::cli {
namespace {

struct ResumeFlags {
  std::string build;
  SourceFlags sources;
  std::string mount_path;
  std::string fetch_folder;
};

absl::Status Run(const ResumeFlags& flags, const Invocation& invocation) {
  v1::ResumeRequest request;
  *request.mutable_sandbox() = flags.sources.ToConfig(flags.build);
  request.set_mount_path(AbsolutePath(flags.mount_path));
  request.set_fetch_folder(AbsolutePath(flags.fetch_folder));
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  const absl::StatusOr<v1::ResumeResponse> response =
      client->Call(&v1::SandboxService::Stub::Resume, request);
  if (absl::IsNotFound(response.status()) && flags.sources.source.empty()) {
    return absl::NotFoundError(absl::StrCat(
        response.status().message(),
        ". If it was paused on another node a moment ago, name that: --source IP:PORT"));
  }
  PEERCHUNK_RETURN_IF_ERROR(response);
  if (invocation.json) {
    PrintJson(ToJson(response->build()));
  } else {
    Print(Describe(response->build()));
  }
  return absl::OkStatus();
}

absl::Status RunUmount(const std::string& path, const Invocation& invocation) {
  v1::UnmountRequest request;
  request.set_mount_path(AbsolutePath(path));
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  PEERCHUNK_RETURN_IF_ERROR(client->Call(&v1::SandboxService::Stub::Unmount, request));
  if (invocation.json) {
    PrintJson(Json{{"unmounted", request.mount_path()}});
  } else {
    Print("unmounted " + request.mount_path() + "\n");
  }
  return absl::OkStatus();
}

}  // namespace

void AddResume(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<ResumeFlags>();
  CLI::App* const command =
      app.add_subcommand("resume", "Make a build ready for use on the daemon's node");
  AddBuildId(*command, flags->build);
  flags->sources.AddTo(*command);
  command->add_option("--mount", flags->mount_path, "Mount its files at this folder")
      ->type_name("DIR");
  command->add_option("--fetch", flags->fetch_folder, "Copy its own files into this folder too")
      ->type_name("DIR");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation); };
  });
}

void AddMount(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<ResumeFlags>();
  CLI::App* const command = app.add_subcommand(
      "mount",
      "Resume a build and mount its files (memfile, rootfs.ext4, snapfile, metadata.json)");
  AddBuildId(*command, flags->build);
  command->add_option("folder", flags->mount_path, "Where to mount it")
      ->required()
      ->type_name("DIR");
  flags->sources.AddTo(*command);
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation); };
  });
}

void AddUmount(CLI::App& app, Invocation& invocation) {
  const auto path = std::make_shared<std::string>();
  CLI::App* const command = app.add_subcommand("umount", "End a mount that the daemon made");
  command->add_option("folder", *path, "Where it is mounted")->required()->type_name("DIR");
  command->callback([path, &invocation] {
    invocation.run = [path, &invocation] { return RunUmount(*path, invocation); };
  });
}

}  // namespace peerchunk::cli
