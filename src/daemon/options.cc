#include "daemon/options.h"

#include <fcntl.h>

#include <algorithm>
#include <map>
#include <utility>

#include <CLI/CLI.hpp>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>

#include "base/default_paths.h"
#include "daemon/option_table.h"
#include "daemon/toml.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

using Kind = OptionSpec::Kind;

constexpr char kDescription[] =
    "Serves this machine's snapshots to the nodes that resume them, uploads them to the base, and\n"
    "makes other nodes' snapshots usable here. Runs without any configuration.";

constexpr char kFooter[] =
    "Every option is also an environment variable (--peer-network: PEERCHUNK_PEER_NETWORK, "
    "several\n"
    "values separated by commas) and a key in the TOML file (peer-network = [\"10.0.0.0/8\"]).\n"
    "A flag is stronger than a variable, a variable stronger than the file.\n"
    "BYTES: 4096, 256KiB, 20MiB, 1.5GiB. TIME: 500ms, 30s, 5m.\n"
    "\n"
    "SIGTERM and SIGINT: no new pauses, uploads are finished, then it leaves; a second one: at "
    "once.\n"
    "Exit codes: 0 left with everything durable, 1 could not start, 2 wrong usage,\n"
    "3 left while builds were not durable (they are listed, kept, and uploaded at the next start).";

// Where the value of an option came from, and what it is.
struct Given {
  std::string where;
  std::vector<std::string> values;
};
using GivenByName = std::map<std::string, Given>;

absl::Status UnknownKey(const TomlEntry& entry, const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat(path, " line ", entry.line, ": unknown key '",
                                                 entry.key, "' (peerchunkd --help lists all)"));
}

absl::Status ReadFile(const std::string& path, GivenByName& given) {
  constexpr uint64_t kMaxBytes = kMiB;
  const absl::StatusOr<File> file = File::Open(path, O_RDONLY);
  if (!file.ok()) return Annotate(file.status(), "configuration file " + path);
  std::string text(kMaxBytes, '\0');
  const absl::StatusOr<size_t> got = file->ReadAt(0, absl::MakeSpan(text));
  if (!got.ok()) return Annotate(got.status(), "configuration file " + path);
  text.resize(*got);
  absl::StatusOr<std::vector<TomlEntry>> entries = ParseToml(text);
  if (!entries.ok()) return Annotate(entries.status(), path);
  const absl::Span<const OptionSpec> table = DaemonOptionTable();
  for (TomlEntry& entry : *entries) {
    const auto spec = std::find_if(table.begin(), table.end(),
                                   [&](const OptionSpec& s) { return s.name == entry.key; });
    if (spec == table.end()) return UnknownKey(entry, path);
    std::string where = absl::StrCat(path, " line ", entry.line, ": ", entry.key);
    if (entry.is_array && spec->kind != Kind::kList) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": takes one value, not an array"));
    }
    given[spec->name] = {.where = std::move(where), .values = std::move(entry.values)};
  }
  return absl::OkStatus();
}

void ReadEnvironment(const Environment& environment, GivenByName& given) {
  for (const OptionSpec& spec : DaemonOptionTable()) {
    const std::optional<std::string> value = environment(spec.variable());
    if (!value) continue;
    std::vector<std::string> values = {*value};
    if (spec.kind == Kind::kList) {
      values = absl::StrSplit(*value, ',', absl::SkipWhitespace());
      for (std::string& one : values) one = std::string(absl::StripAsciiWhitespace(one));
    }
    given[spec.name] = {.where = spec.variable(), .values = std::move(values)};
  }
}

// The flags of one command line, as CLI11 reads them: it checks their syntax and makes the help.
class FlagReader {
 public:
  FlagReader() : app_(kDescription, "peerchunkd") {
    app_.footer(kFooter);
    app_.set_version_flag("--version", "peerchunkd " PEERCHUNK_VERSION);
    app_.add_option("--config", config_, "A TOML file with any of these options")
        ->type_name("PATH");
    app_.add_flag("--dump-config", dump_, "Print the options in force, as TOML, and leave");
    const DaemonOptions defaults;
    for (const OptionSpec& spec : DaemonOptionTable()) Add(spec, defaults);
  }

  // False: `text` is to be printed instead of running.
  absl::StatusOr<bool> Parse(std::vector<std::string> arguments, std::string& text) {
    std::reverse(arguments.begin(), arguments.end());
    try {
      app_.parse(std::move(arguments));
    } catch (const CLI::CallForHelp&) {
      text = app_.help();
      return false;
    } catch (const CLI::CallForVersion& version) {
      text = std::string(version.what()) + "\n";
      return false;
    } catch (const CLI::ParseError& error) {
      return absl::InvalidArgumentError(
          absl::StrCat(error.what(), " (peerchunkd --help lists all options)"));
    }
    return true;
  }

  void AddTo(GivenByName& given) {
    for (auto& [name, values] : values_) {
      if (app_.get_option("--" + name)->count() == 0) continue;
      given[name] = {.where = "--" + name, .values = std::move(values)};
    }
  }

  const std::string& config() const { return config_; }
  bool dump() const { return dump_; }

 private:
  void Add(const OptionSpec& spec, const DaemonOptions& defaults) {
    std::vector<std::string>& values = values_[spec.name];
    const std::string flag = "--" + spec.name;
    if (spec.kind == Kind::kSwitch) {
      app_.add_flag(flag, values, spec.help)->group(spec.group);
      return;
    }
    const std::vector<std::string> shown = spec.get(defaults);
    std::string argument = spec.argument;
    if (!shown.empty() && !shown[0].empty()) argument += " [" + shown[0] + "]";
    CLI::Option* const option = app_.add_option(flag, values, spec.help)
                                    ->group(spec.group)
                                    ->type_name(argument)
                                    ->allow_extra_args(false);
    if (spec.kind != Kind::kList) {
      option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::Throw);
    }
  }

  CLI::App app_;
  std::string config_;
  bool dump_ = false;
  std::map<std::string, std::vector<std::string>> values_;
};

}  // namespace

absl::StatusOr<DaemonCommand> ParseDaemonCommand(const std::vector<std::string>& arguments,
                                                 const Environment& environment) {
  FlagReader flags;
  DaemonCommand command;
  std::string text;
  PEERCHUNK_ASSIGN_OR_RETURN(const bool run, flags.Parse(arguments, text));
  if (!run) {
    command.text = std::move(text);
    return command;
  }

  // Weakest first: what follows takes the place of what is there.
  GivenByName given;
  const std::string config =
      !flags.config().empty() ? flags.config() : environment("PEERCHUNK_CONFIG").value_or("");
  if (!config.empty()) PEERCHUNK_RETURN_IF_ERROR(ReadFile(config, given));
  ReadEnvironment(environment, given);
  flags.AddTo(given);

  DaemonOptions& options = command.options;
  for (const OptionSpec& spec : DaemonOptionTable()) {
    const auto found = given.find(spec.name);
    if (found == given.end()) continue;
    if (spec.kind != Kind::kList && found->second.values.size() != 1) {
      return absl::InvalidArgumentError(absl::StrCat(found->second.where, ": takes one value"));
    }
    if (const absl::Status set = spec.set(options, found->second.values); !set.ok()) {
      return Annotate(set, found->second.where);
    }
  }
  if (options.listen.empty()) {
    return absl::InvalidArgumentError("--listen: at least one address is needed");
  }
  if (options.data_folder.empty()) options.data_folder = DefaultDataFolder();
  options.data_folder = AbsolutePath(options.data_folder);
  if (options.base.empty()) options.base = options.data_folder + "/base";
  if (!options.base.starts_with("gs://")) options.base = AbsolutePath(options.base);
  options.ready_file = AbsolutePath(options.ready_file);
  // A control address with a '/' is the path of a socket.
  if (!options.control.starts_with("unix:") && options.control.find('/') != std::string::npos) {
    options.control = AbsolutePath(options.control);
  }
  if (options.control.empty()) options.control = ControlSocketIn(options.data_folder);
  if (flags.dump()) command.text = DumpConfig(options);
  return command;
}

std::string DumpConfig(const DaemonOptions& options) {
  std::string text;
  for (const OptionSpec& spec : DaemonOptionTable()) {
    const std::vector<std::string> values = spec.get(options);
    absl::StrAppend(&text, spec.name, " = ");
    if (spec.kind == Kind::kList) {
      std::string list;
      for (const std::string& value : values) {
        absl::StrAppend(&list, list.empty() ? "" : ", ", QuoteToml(value));
      }
      absl::StrAppend(&text, "[", list, "]\n");
    } else if (spec.kind == Kind::kText) {
      absl::StrAppend(&text, QuoteToml(values[0]), "\n");
    } else {
      absl::StrAppend(&text, values[0], "\n");
    }
  }
  return text;
}

}  // namespace peerchunk
