#include "cli/command.h"

#include "peerchunk/base/status.h"

namespace peerchunk::cli {
namespace {

std::string CheckLayerSource(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals != std::string::npos && BuildId::Parse(text.substr(0, equals)).ok()) return "";
  return "'" + text + "' is not BUILD_ID=IP:PORT";
}

}  // namespace

const CLI::Validator kIsBuildId(
    [](std::string& text) -> std::string {
      const absl::StatusOr<BuildId> id = BuildId::Parse(text);
      if (!id.ok()) return std::string(id.status().message());
      return id->is_nil() ? "the nil UUID names no build" : "";
    },
    "", "build id");

CLI::Option* AddBuildId(CLI::App& command, std::string& text) {
  return command.add_option("build", text, "The build's id, a UUID in lower case")
      ->required()
      ->type_name("BUILD_ID")
      ->check(kIsBuildId);
}

BuildId ToBuildId(const std::string& text) { return BuildId::Parse(text).value(); }

void SourceFlags::AddTo(CLI::App& command) {
  command.add_option("--source", source, "The node that paused the build. Default: the base only")
      ->type_name("IP:PORT");
  command
      .add_option("--layer-source", layer_sources,
                  "Where one of its layers lies, if elsewhere; may be repeated")
      ->type_name("BUILD_ID=IP:PORT")
      ->allow_extra_args(false)
      ->check(CLI::Validator([](std::string& text) { return CheckLayerSource(text); }, "",
                             "layer source"));
}

v1::SandboxConfig SourceFlags::ToConfig(const std::string& build_id) const {
  v1::SandboxConfig config;
  config.set_build_id(build_id);
  config.set_source_orchestrator_address(source);
  for (const std::string& layer : layer_sources) {
    const size_t equals = layer.find('=');
    (*config.mutable_layer_source_addresses())[layer.substr(0, equals)] = layer.substr(equals + 1);
  }
  return config;
}

BuildSources SourceFlags::ToSources() const {
  BuildSources sources;
  if (!source.empty()) sources.default_addresses.push_back(source);
  for (const std::string& layer : layer_sources) {
    const size_t equals = layer.find('=');
    sources.by_build[ToBuildId(layer.substr(0, equals))].push_back(layer.substr(equals + 1));
  }
  return sources;
}

}  // namespace peerchunk::cli
