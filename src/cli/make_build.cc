
#include <memory>
#include <vector>

#include "base/byte_size.h"
#include "base/default_paths.h"
#include "cli/command.h"
#include "cli/output.h"
#include "node/pack_build.h"
#include "peerchunk/base/status.h"

namespace peerchunk::cli {
namespace {

struct MakeBuildFlags {
  std::string memfile;
  std::string rootfs;
  std::string snapfile;
  std::string out;
  std::string build;
  std::string parent_folder;
  std::string parent_memfile;
  std::string parent_rootfs;
  std::string memfile_block_size = "4KiB";
  std::string kernel_version;
  std::string firecracker_version;
  bool filesystem_only = false;
};

absl::Status Run(const MakeBuildFlags& flags, const Invocation& invocation) {
  PackOptions options;
  options.build = flags.build.empty() ? BuildId::Random() : ToBuildId(flags.build);
  options.out_folder = AbsolutePath(flags.out);
  options.memfile = AbsolutePath(flags.memfile);
  options.rootfs = AbsolutePath(flags.rootfs);
  options.snapfile = AbsolutePath(flags.snapfile);
  options.parent_folder = AbsolutePath(flags.parent_folder);
  options.parent_memfile = AbsolutePath(flags.parent_memfile);
  options.parent_rootfs = AbsolutePath(flags.parent_rootfs);
  options.kernel_version = flags.kernel_version;
  options.firecracker_version = flags.firecracker_version;
  options.cancellation = invocation.interrupted;
  PEERCHUNK_ASSIGN_OR_RETURN(options.memfile_block_bytes, ParseByteSize(flags.memfile_block_size));
  if (flags.memfile.empty() != flags.filesystem_only ||
      flags.snapfile.empty() != flags.filesystem_only) {
    return absl::InvalidArgumentError(
        "--memfile and --snapfile are both needed, or neither of them with --filesystem-only");
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const PackedBuild packed, PackBuild(options));
  if (invocation.json) {
    Json json = {{"build_id", packed.build.ToString()}, {"folder", options.out_folder}};
    json["diffs"] = Json::array();
    for (const PackedDiff& diff : packed.diffs) {
      json["diffs"].push_back({{"name", FileName(diff.kind)},
                               {"device_size", diff.device_bytes},
                               {"size", diff.diff_bytes},
                               {"zero_bytes", diff.zero_bytes},
                               {"unchanged_bytes", diff.unchanged_bytes},
                               {"generation", diff.generation}});
    }
    PrintJson(json);
    return absl::OkStatus();
  }
  Table table({"FILE", "DEVICE", "IN THE DIFF", "ZEROS", "FROM THE PARENT", "GENERATION"});
  for (const PackedDiff& diff : packed.diffs) {
    table.AddRow(
        {std::string(FileName(diff.kind)), HumanByteSize(static_cast<double>(diff.device_bytes)),
         HumanByteSize(static_cast<double>(diff.diff_bytes)),
         HumanByteSize(static_cast<double>(diff.zero_bytes)),
         HumanByteSize(static_cast<double>(diff.unchanged_bytes)), absl::StrCat(diff.generation)});
  }
  Print(absl::StrCat("build ", packed.build.ToString(), " in ", options.out_folder, "\n",
                     table.ToString(), "next: peerchunk pause --folder ", options.out_folder,
                     "\n"));
  return absl::OkStatus();
}

}  // namespace

void AddMakeBuild(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<MakeBuildFlags>();
  CLI::App* const command = app.add_subcommand(
      "make-build", "Make the files of a build (diffs, headers, metadata.json) from raw images");
  const auto image = [&](const std::string& name, std::string& path, const std::string& help) {
    return command->add_option(name, path, help)->type_name("FILE")->check(CLI::ExistingFile);
  };
  image("--rootfs", flags->rootfs, "The raw image of the root file system")->required();
  image("--memfile", flags->memfile, "The raw image of the memory");
  image("--snapfile", flags->snapfile, "The state of the machine's devices");
  command->add_flag("--filesystem-only", flags->filesystem_only, "No memory and no devices");
  command->add_option("--out", flags->out, "A folder for the files; made when missing")
      ->required()
      ->type_name("DIR");
  command->add_option("--build-id", flags->build, "Default: a new one")
      ->type_name("BUILD_ID")
      ->check(kIsBuildId);
  command
      ->add_option("--memfile-block-size", flags->memfile_block_size,
                   "The unit of changes in memory: 4KiB or 2MiB")
      ->type_name("BYTES")
      ->check(CLI::IsMember({"4KiB", "2MiB"}));
  const std::string group = "A child of an earlier build";
  command
      ->add_option("--parent-folder", flags->parent_folder,
                   "The parent's build files (its headers)")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory)
      ->group(group);
  image("--parent-rootfs", flags->parent_rootfs, "The parent's raw image")->group(group);
  image("--parent-memfile", flags->parent_memfile, "The parent's raw image")->group(group);
  command->add_option("--kernel-version", flags->kernel_version, "For metadata.json")
      ->type_name("TEXT");
  command->add_option("--firecracker-version", flags->firecracker_version, "For metadata.json")
      ->type_name("TEXT");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation); };
  });
}

}  // namespace peerchunk::cli
