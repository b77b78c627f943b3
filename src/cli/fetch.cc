#include <algorithm>
#include <memory>

#include <absl/strings/str_format.h>

#include "base/byte_size.h"
#include "base/default_paths.h"
#include "cli/command.h"
#include "cli/control_client.h"
#include "cli/library.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "node/fetch_build.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/status.h"

namespace peerchunk::cli {
namespace {

struct FetchFlags {
  std::string build;
  SourceFlags sources;
  LibraryFlags library;
  std::string out;
  std::string read_from = "both";
  bool overwrite = false;
  double patience_seconds = 60;
};

struct Fetched {
  FetchFigures figures;
  std::vector<v1::BuildFileInfo> files;
};

class Fetcher {
 public:
  Fetcher(const FetchFlags& flags, const Invocation& invocation)
      : flags_(flags),
        invocation_(invocation),
        progress_(Progress::StyleOfStderr(invocation.json)) {}

  absl::StatusOr<Fetched> ThroughDaemon() {
    PEERCHUNK_ASSIGN_OR_RETURN(
        const auto client, ControlClient::Connect(invocation_.control, invocation_.interrupted));
    v1::FetchBuildRequest request;
    *request.mutable_sandbox() = flags_.sources.ToConfig(flags_.build);
    request.set_folder(AbsolutePath(flags_.out));
    request.set_overwrite(flags_.overwrite);
    request.set_patience_ms(
        static_cast<uint32_t>(absl::ToInt64Milliseconds(absl::Seconds(flags_.patience_seconds))));
    grpc::ClientContext context;
    const std::stop_callback cancel(invocation_.interrupted, [&context] { context.TryCancel(); });
    const auto reader = client->stub().FetchBuild(&context, request);
    Fetched fetched;
    v1::FetchProgress message;
    bool done = false;
    while (reader->Read(&message)) {
      fetched.figures = {.file = message.file(),
                         .total_size = message.total_size(),
                         .total_done = message.total_done(),
                         .from_peer = message.bytes_from_peer(),
                         .from_base = message.bytes_from_base(),
                         .zeros = message.bytes_zero()};
      progress_.Show(fetched.figures, Clock::Real().Now());
      done = message.done();
      if (done) fetched.files.assign(message.files().begin(), message.files().end());
    }
    PEERCHUNK_RETURN_IF_ERROR(ToAbslStatus(reader->Finish()));
    if (!done) return absl::UnavailableError("the daemon went away before the fetch was over");
    return fetched;
  }

  absl::StatusOr<Fetched> ByLibrary() {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto library, Library::Open(flags_.library));
    const BuildId id = ToBuildId(flags_.build);
    PEERCHUNK_ASSIGN_OR_RETURN(std::shared_ptr<StorageProvider> provider,
                               library->OpenBuild(id, flags_.sources.ToSources().For(id)));
    const std::unique_ptr<BuildContent> content = ContentOf(id, std::move(provider));
    Fetched fetched;
    FetchOptions options{.folder = AbsolutePath(flags_.out), .overwrite = flags_.overwrite};
    options.read.cancellation = invocation_.interrupted;
    options.patience = absl::Seconds(flags_.patience_seconds);
    if (flags_.read_from == "peer") options.read.sources = SourcePolicy::kPeerOnly;
    if (flags_.read_from == "base") options.read.sources = SourcePolicy::kBaseOnly;
    options.on_progress = [&](const FetchState& state) {
      const SourceBytes bytes = library->BytesOf(id);
      fetched.figures = {.file = std::string(FileName(state.kind)),
                         .total_size = state.total_size,
                         .total_done = state.total_done,
                         .from_peer = bytes.peer,
                         .from_base = bytes.base,
                         .zeros = state.zero_bytes};
      progress_.Show(fetched.figures, Clock::Real().Now());
    };
    PEERCHUNK_ASSIGN_OR_RETURN(const std::vector<FetchedFile> files,
                               FetchBuild(id, *content, options));
    for (const FetchedFile& file : files) {
      v1::BuildFileInfo& out = fetched.files.emplace_back();
      out.set_name(std::string(FileName(file.kind)));
      out.set_size(file.size);
      out.set_crc32c(file.crc32c);
    }
    return fetched;
  }

 private:
  const FetchFlags& flags_;
  const Invocation& invocation_;
  Progress progress_;
};

Json ToJson(const Fetched& fetched, const FetchFlags& flags, absl::Duration took) {
  Json json = {{"build_id", flags.build},
               {"folder", AbsolutePath(flags.out)},
               {"bytes", fetched.figures.total_done},
               {"bytes_from_peer", fetched.figures.from_peer},
               {"bytes_from_base", fetched.figures.from_base},
               {"bytes_zero", fetched.figures.zeros},
               {"seconds", absl::ToDoubleSeconds(took)}};
  json["files"] = Json::array();
  for (const v1::BuildFileInfo& file : fetched.files) {
    json["files"].push_back(
        {{"name", file.name()}, {"size", file.size()}, {"crc32c", HexCrc32c(file.crc32c())}});
  }
  return json;
}

absl::Status Run(const FetchFlags& flags, const Invocation& invocation) {
  const absl::Time started = Clock::Real().Now();
  absl::StatusOr<Fetched> fetched;
  {
    Fetcher fetcher(flags, invocation);
    fetched = flags.library.base.empty() ? fetcher.ThroughDaemon() : fetcher.ByLibrary();
  }
  PEERCHUNK_RETURN_IF_ERROR(fetched);
  const absl::Duration took = Clock::Real().Now() - started;
  if (invocation.json) {
    PrintJson(ToJson(*fetched, flags, took));
    return absl::OkStatus();
  }
  Table table({"FILE", "SIZE", "CRC32C"});
  for (const v1::BuildFileInfo& file : fetched->files) {
    table.AddRow(
        {file.name(), HumanByteSize(static_cast<double>(file.size())), HexCrc32c(file.crc32c())});
  }
  Print(table.ToString());
  const FetchFigures& figures = fetched->figures;
  const double bytes = static_cast<double>(figures.total_done);
  Print(absl::StrFormat("%s in %s (%s/s): %s from peers, %s from the base, %s zeros\n",
                        HumanByteSize(bytes),
                        absl::FormatDuration(absl::Trunc(took, absl::Milliseconds(1))),
                        HumanByteSize(bytes / std::max(absl::ToDoubleSeconds(took), 1e-3)),
                        HumanByteSize(static_cast<double>(figures.from_peer)),
                        HumanByteSize(static_cast<double>(figures.from_base)),
                        HumanByteSize(static_cast<double>(figures.zeros))));
  return absl::OkStatus();
}

}  // namespace

void AddFetch(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<FetchFlags>();
  CLI::App* const command = app.add_subcommand(
      "fetch", "Copy a build's own files into a folder, checked, from its source and the base");
  AddBuildId(*command, flags->build);
  command->add_option("--out", flags->out, "The folder; made when missing")
      ->required()
      ->type_name("DIR");
  flags->sources.AddTo(*command);
  flags->library.AddTo(*command);
  CLI::Option* const read_from =
      command->add_option("--read-from", flags->read_from, "both, peer or base; with --base")
          ->check(CLI::IsMember({"both", "peer", "base"}));
  read_from->needs(command->get_option("--base"));
  command
      ->add_option("--patience", flags->patience_seconds,
                   "How long to wait for sources that answer nothing")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str();
  command->add_flag("--overwrite", flags->overwrite, "Replace files there that differ");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation); };
  });
}

}  // namespace peerchunk::cli
