#include "daemon/option_table.h"

#include <charconv>
#include <string_view>
#include <utility>

#include <absl/strings/ascii.h>
#include <absl/strings/str_replace.h>

#include "base/byte_size.h"
#include "peerchunk/base/status.h"
#include "peerchunk/service/chunk_service.h"

namespace peerchunk {
namespace {

using Kind = OptionSpec::Kind;
using Values = std::vector<std::string>;

absl::Status Set(std::string& member, const std::string& text) {
  member = text;
  return absl::OkStatus();
}

absl::Status Set(bool& member, const std::string& text) {
  if (text != "true" && text != "false") {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is neither true nor false"));
  }
  member = text == "true";
  return absl::OkStatus();
}

absl::Status Set(absl::Duration& member, const std::string& text) {
  absl::Duration value;
  if (!absl::ParseDuration(text, &value) || value < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a time span: write 500ms, 30s, 5m or inf"));
  }
  member = value;
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ParseCount(const std::string& text, uint64_t least, uint64_t most) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end || value < least || value > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a whole number from ", least, " to ", most));
  }
  return value;
}

template <typename Owner>
using Member = Owner& (*)(DaemonOptions&);

// The specification of an option whose value is one member, reached through `at`.
template <typename At>
OptionSpec Plain(std::string name, Kind kind, std::string group, std::string argument,
                 std::string help, At at) {
  return {.name = std::move(name),
          .kind = kind,
          .group = std::move(group),
          .argument = std::move(argument),
          .help = std::move(help),
          .set = [at](DaemonOptions& options,
                      const Values& values) { return Set(at(options), values[0]); },
          .get = [at](const DaemonOptions& options) -> Values {
            const auto& value = at(const_cast<DaemonOptions&>(options));
            if constexpr (std::is_same_v<decltype(value), const bool&>) {
              return {value ? "true" : "false"};
            } else if constexpr (std::is_same_v<decltype(value), const absl::Duration&>) {
              return {absl::FormatDuration(value)};
            } else {
              return {value};
            }
          }};
}

template <typename At>
OptionSpec Bytes(std::string name, std::string group, std::string help, uint64_t least, At at) {
  return {.name = std::move(name),
          .kind = Kind::kText,
          .group = std::move(group),
          .argument = "BYTES",
          .help = std::move(help),
          .set = [at, least](DaemonOptions& options, const Values& values) -> absl::Status {
            PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t bytes, ParseByteSize(values[0]));
            if (bytes < least) {
              return absl::InvalidArgumentError(
                  absl::StrCat("'", values[0], "' is less than ", ExactByteSize(least)));
            }
            at(options) = bytes;
            return absl::OkStatus();
          },
          .get = [at](const DaemonOptions& options) -> Values {
            return {ExactByteSize(at(const_cast<DaemonOptions&>(options)))};
          }};
}

template <typename At>
OptionSpec Count(std::string name, std::string group, std::string help, uint64_t least,
                 uint64_t most, At at) {
  return {.name = std::move(name),
          .kind = Kind::kNumber,
          .group = std::move(group),
          .argument = "NUMBER",
          .help = std::move(help),
          .set = [at, least, most](DaemonOptions& options, const Values& values) -> absl::Status {
            PEERCHUNK_ASSIGN_OR_RETURN(at(options), ParseCount(values[0], least, most));
            return absl::OkStatus();
          },
          .get = [at](const DaemonOptions& options) -> Values {
            return {std::to_string(at(const_cast<DaemonOptions&>(options)))};
          }};
}

template <typename At>
OptionSpec List(std::string name, std::string group, std::string argument, std::string help,
                At at) {
  return {.name = std::move(name),
          .kind = Kind::kList,
          .group = std::move(group),
          .argument = std::move(argument),
          .help = std::move(help),
          .set =
              [at](DaemonOptions& options, const Values& values) {
                at(options) = values;
                return absl::OkStatus();
              },
          .get = [at](const DaemonOptions& options) -> Values {
            return at(const_cast<DaemonOptions&>(options));
          }};
}

// Whoever touches one page waits for a chunk.
constexpr uint64_t kMaxChunkBytes = 16 * kMiB;

absl::Status CheckChunkSize(uint64_t bytes) {
  if (bytes > kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(ExactByteSize(bytes), " is more than ", ExactByteSize(kMaxChunkBytes),
                     ": all of it would be fetched for each page that is touched"));
  }
  if (bytes % kPageBytes == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(bytes, " is not a multiple of the page size, 4096"));
}

absl::Status CheckServeRate(uint64_t bytes_per_second) {
  if (bytes_per_second == 0 || bytes_per_second >= ChunkService::kLeastBytesPerSecond) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", ExactByteSize(bytes_per_second),
                   "' a second is so slow that readers would take this node "
                   "for stalled; give at least ",
                   ExactByteSize(ChunkService::kLeastBytesPerSecond), ", or 0 for no limit"));
}

absl::Status CheckLogLevel(const std::string& level) {
  for (const std::string_view known : {"trace", "debug", "info", "warn", "error", "off"}) {
    if (level == known) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", level, "' is not a level: trace, debug, info, warn, error or off"));
}

// `spec` with a check of the value after it was set.
template <typename Check>
OptionSpec Checked(OptionSpec spec, Check check) {
  spec.set = [set = spec.set, check](DaemonOptions& options, const Values& values) -> absl::Status {
    PEERCHUNK_RETURN_IF_ERROR(set(options, values));
    return check(options);
  };
  return spec;
}

#define PEERCHUNK_AT(member) \
  [](DaemonOptions & o) -> auto& { return o.member; }

std::vector<OptionSpec> MakeTable() {
  std::vector<OptionSpec> table;
  const std::string where = "Where things are";
  table.push_back(List("listen", where, "IP:PORT",
                       "Address to serve peers on; several allowed; port 0: any free one",
                       PEERCHUNK_AT(listen)));
  table.push_back(
      Plain("control", Kind::kText, where, "PATH|IP:PORT",
            "Where the tool and the orchestrator connect: a unix socket (mode 0600) or a "
            "loopback address. Default: control.sock in the data folder",
            PEERCHUNK_AT(control)));
  table.push_back(Plain("metrics-address", Kind::kText, where, "IP:PORT",
                        "Serve metrics to Prometheus here, as http://IP:PORT/metrics, unencrypted; "
                        "port 0: any free one. Default: nowhere",
                        PEERCHUNK_AT(metrics_address)));
  table.push_back(Plain("data-folder", Kind::kText, where, "PATH",
                        "Builds paused here, and caches; of one daemon at a time",
                        PEERCHUNK_AT(data_folder)));
  table.push_back(Plain("base", Kind::kText, where, "PATH|gs://BUCKET[/PREFIX]",
                        "The store under the peers. Default: the folder 'base' in the data folder",
                        PEERCHUNK_AT(base)));
  table.push_back(Plain("ready-file", Kind::kText, where, "PATH",
                        "Write the bound addresses here, one a line, once everything is served",
                        PEERCHUNK_AT(ready_file)));

  const std::string peers = "Peers";
  table.push_back(List("peer-network", peers, "CIDR",
                       "A network that peers lie in; several allowed. Default: the private ranges",
                       PEERCHUNK_AT(peer_networks)));
  table.push_back(Plain("tls-cert", Kind::kText, peers, "PEM",
                        "This node's certificate chain; renewed files are picked up by themselves",
                        PEERCHUNK_AT(tls.certificate_path)));
  table.push_back(
      Plain("tls-key", Kind::kText, peers, "PEM", "Its private key", PEERCHUNK_AT(tls.key_path)));
  table.push_back(Plain("tls-ca", Kind::kText, peers, "PEM",
                        "The authority that signs the nodes' certificates",
                        PEERCHUNK_AT(tls.authority_path)));
  table.push_back(List("tls-peer-name", peers, "NAME",
                       "A name (DNS, IP, URI) that a peer's certificate may carry; several allowed",
                       PEERCHUNK_AT(tls.peer_names)));
  table.push_back(
      Plain("insecure-plaintext", Kind::kSwitch, peers, "",
            "Allow plaintext beyond loopback: everyone on the network can read snapshots",
            PEERCHUNK_AT(insecure_plaintext)));
  table.push_back(Count("read-threads", peers, "Threads that read disks for peers", 1, 1024,
                        PEERCHUNK_AT(read_threads)));
  table.push_back(Count("max-streams", peers, "Streams to peers at a time; more are refused", 1,
                        1'000'000, PEERCHUNK_AT(max_streams)));
  table.push_back(Count("max-streams-per-peer", peers, "Of these, to one peer", 1, 1'000'000,
                        PEERCHUNK_AT(max_streams_per_peer)));
  table.push_back(Bytes("max-bytes-in-flight", peers,
                        "Memory for messages to peers, over all streams; one peer gets a quarter",
                        2 * kMiB, PEERCHUNK_AT(max_bytes_in_flight)));
  table.push_back(
      Checked(Bytes("serve-rate", peers,
                    absl::StrCat("Bytes per second sent to peers, over all streams; 0: no limit, "
                                 "else at least ",
                                 ExactByteSize(ChunkService::kLeastBytesPerSecond)),
                    0, PEERCHUNK_AT(serve_rate)),
              [](const DaemonOptions& o) { return CheckServeRate(o.serve_rate); }));

  const std::string reading = "Reading";
  table.push_back(Bytes("cache-capacity", reading,
                        "Disk for builds that may be evicted; what is not durable never is", 0,
                        PEERCHUNK_AT(cache_capacity)));
  table.push_back(
      Checked(Bytes("chunk-size", reading,
                    "What is fetched at once for a page; a multiple of 4096, at most 16MiB",
                    kPageBytes, PEERCHUNK_AT(chunk_size)),
              [](const DaemonOptions& o) { return CheckChunkSize(o.chunk_size); }));
  table.push_back(Count("fetch-threads", reading, "Fetches under way at a time", 1, 4096,
                        PEERCHUNK_AT(fetch_threads)));
  table.push_back(Bytes("max-read-ahead", reading,
                        "How far ahead of a guest that reads in order; 0: not at all", 0,
                        PEERCHUNK_AT(max_read_ahead)));
  table.push_back(Plain("no-working-sets", Kind::kSwitch, reading, "",
                        "Do not record what a resume reads first, for the next one",
                        PEERCHUNK_AT(no_working_sets)));
  table.push_back(Bytes("base-read-rate", reading,
                        "Bytes per second read from a local base; 0: no limit", 0,
                        PEERCHUNK_AT(base_read_rate)));

  const std::string pausing = "Pausing and uploading";
  table.push_back(Plain("pause-sync", Kind::kSwitch, pausing, "",
                        "Return from a pause only when it is safe against a power cut",
                        PEERCHUNK_AT(pause_sync)));
  table.push_back(Count("upload-parallelism", pausing, "Builds uploaded at a time", 1, 1024,
                        PEERCHUNK_AT(upload_parallelism)));
  table.push_back(Count("upload-max-attempts", pausing,
                        "Failed attempts after which a build is FAILED; 0: try for ever", 0,
                        UINT32_MAX, PEERCHUNK_AT(upload_max_attempts)));
  table.push_back(Bytes("upload-rate", pausing,
                        "Bytes per second sent to the base, over all uploads; 0: no limit", 0,
                        PEERCHUNK_AT(upload_rate)));
  table.push_back(Plain("drain-timeout", Kind::kText, pausing, "TIME",
                        "How long SIGTERM waits for uploads to end", PEERCHUNK_AT(drain_timeout)));

  table.push_back(Checked(Plain("log-level", Kind::kText, "Other", "LEVEL",
                                "trace, debug, info, warn, error or off", PEERCHUNK_AT(log_level)),
                          [](const DaemonOptions& o) { return CheckLogLevel(o.log_level); }));
  return table;
}

#undef PEERCHUNK_AT

}  // namespace

std::string OptionSpec::variable() const {
  return "PEERCHUNK_" + absl::AsciiStrToUpper(absl::StrReplaceAll(name, {{"-", "_"}}));
}

absl::Span<const OptionSpec> DaemonOptionTable() {
  static const std::vector<OptionSpec>& table = *new std::vector<OptionSpec>(MakeTable());
  return table;
}

}  // namespace peerchunk
