#include <fcntl.h>

#include <filesystem>
#include <memory>

#include "base/byte_size.h"
#include "cli/command.h"
#include "cli/control_client.h"
#include "cli/output.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"

namespace peerchunk::cli {
namespace {

struct InspectFlags {
  std::string target;
  bool mappings = false;
};

absl::StatusOr<Header> ReadHeader(const std::string& path) {
  const absl::StatusOr<File> file = File::Open(path, O_RDONLY);
  if (!file.ok()) return Annotate(file.status(), path);
  PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > kMaxHeaderFileBytes) {
    return absl::InvalidArgumentError(path + ": too large for a header");
  }
  std::string bytes(size, '\0');
  PEERCHUNK_RETURN_IF_ERROR(file->ReadAt(0, absl::MakeSpan(bytes)));
  absl::StatusOr<Header> header = Header::Decode(bytes);
  if (!header.ok()) return Annotate(header.status(), path + " is no header that can be read");
  return header;
}

uint64_t ZeroBytes(const Header& header) {
  uint64_t zeros = 0;
  for (const Mapping& mapping : header.mappings()) {
    if (mapping.is_zero()) zeros += mapping.length;
  }
  return zeros;
}

Json HeaderJson(const Header& header, bool with_mappings) {
  const HeaderMetadata& metadata = header.metadata();
  Json json = {{"format", metadata.format()},
               {"build_id", metadata.build_id.ToString()},
               {"base_build_id", metadata.base_build_id.ToString()},
               {"generation", metadata.generation},
               {"size", metadata.size},
               {"block_size", metadata.block_size},
               {"incomplete", header.incomplete()},
               {"mapping_count", header.mappings().size()},
               {"zero_bytes", ZeroBytes(header)},
               {"warnings", Json::array()},
               {"layers", Json::array()}};
  for (const std::string& warning : header.warnings()) json["warnings"].push_back(warning);
  for (const Layer& layer : header.Layers()) {
    json["layers"].push_back({{"build_id", layer.build_id.ToString()},
                              {"mapped_bytes", layer.mapped_bytes},
                              {"required_size", layer.required_size}});
  }
  if (with_mappings) {
    json["mappings"] = Json::array();
    for (const Mapping& mapping : header.mappings()) {
      json["mappings"].push_back(
          {{"offset", mapping.offset},
           {"length", mapping.length},
           {"build_id", mapping.is_zero() ? Json(nullptr) : Json(mapping.build_id.ToString())},
           {"storage_offset", mapping.storage_offset}});
    }
  }
  return json;
}

std::string DescribeHeader(const Header& header, bool with_mappings) {
  const HeaderMetadata& metadata = header.metadata();
  std::string text = absl::StrCat(
      "header      version ", metadata.format(), header.incomplete() ? ", upload pending" : "",
      "\nbuild       ", metadata.build_id.ToString(), "\nbase build  ",
      metadata.base_build_id.ToString(), "\ngeneration  ", metadata.generation, "\ndevice      ",
      HumanByteSize(static_cast<double>(metadata.size)), " (", metadata.size, " bytes), blocks of ",
      ExactByteSize(metadata.block_size), "\nmappings    ", header.mappings().size(), "\n");
  for (const std::string& warning : header.warnings()) {
    absl::StrAppend(&text, "warning     ", warning, "\n");
  }
  Table table({"LAYER", "MAPPED", "NEEDS A DIFF OF"});
  for (const Layer& layer : header.Layers()) {
    table.AddRow({layer.build_id.ToString(), HumanByteSize(static_cast<double>(layer.mapped_bytes)),
                  absl::StrCat(layer.required_size, " bytes")});
  }
  table.AddRow({"(zeros)", HumanByteSize(static_cast<double>(ZeroBytes(header))), "-"});
  absl::StrAppend(&text, "\n", table.ToString());
  if (with_mappings) {
    Table all({"OFFSET", "LENGTH", "LAYER", "STORAGE OFFSET"});
    for (const Mapping& mapping : header.mappings()) {
      all.AddRow({absl::StrCat(mapping.offset), absl::StrCat(mapping.length),
                  mapping.is_zero() ? "(zeros)" : mapping.build_id.ToString(),
                  absl::StrCat(mapping.storage_offset)});
    }
    absl::StrAppend(&text, "\n", all.ToString());
  }
  return text;
}

absl::Status InspectBuild(const std::string& build, const Invocation& invocation) {
  v1::GetBuildRequest request;
  request.set_build_id(build);
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  PEERCHUNK_ASSIGN_OR_RETURN(const v1::BuildInfo info,
                             client->Call(&v1::SandboxService::Stub::GetBuild, request));
  if (invocation.json) {
    PrintJson(ToJson(info));
  } else {
    Print(Describe(info));
  }
  return absl::OkStatus();
}

absl::Status Run(const InspectFlags& flags, const Invocation& invocation) {
  if (BuildId::Parse(flags.target).ok()) return InspectBuild(flags.target, invocation);
  std::error_code error;
  if (!std::filesystem::exists(flags.target, error)) {
    return absl::NotFoundError(absl::StrCat(
        "'", flags.target, "' is neither a build id (a UUID in lower case) nor a header file"));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const Header header, ReadHeader(flags.target));
  if (invocation.json) {
    PrintJson(HeaderJson(header, flags.mappings));
  } else {
    Print(DescribeHeader(header, flags.mappings));
  }
  return absl::OkStatus();
}

}  // namespace

void AddInspect(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<InspectFlags>();
  CLI::App* const command = app.add_subcommand(
      "inspect",
      "Show a build of the daemon's node (state, files, layers, where bytes came from), "
      "or what a header file says");
  command->add_option("target", flags->target, "A build id, or the path of a header")
      ->required()
      ->type_name("BUILD_ID|FILE");
  command->add_flag("--mappings", flags->mappings, "Of a header: every mapping too");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation); };
  });
}

}  // namespace peerchunk::cli
