#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "node/transport_credentials.h"
#include "peerchunk/base/range.h"

namespace peerchunk {

// What peerchunkd is told. Every member has a flag, an environment variable and a key in the file,
// all of one name (option_table.cc); the defaults here are those that --help shows.
struct DaemonOptions {
  std::vector<std::string> listen = {"127.0.0.1:7070"};
  std::string ready_file;       // Empty: none.
  std::string control;          // Empty: control.sock in the data folder.
  std::string metrics_address;  // Empty: not served.
  std::string data_folder;      // Empty: DefaultDataFolder().
  std::string base;             // Empty: the folder "base" in the data folder.
  uint64_t base_read_rate = 0;

  std::vector<std::string> peer_networks;
  bool insecure_plaintext = false;
  TlsFiles tls;

  uint64_t cache_capacity = 64 * kGiB;
  uint64_t chunk_size = 256 * kKiB;
  uint64_t max_read_ahead = 8 * kMiB;
  bool no_working_sets = false;
  uint64_t fetch_threads = 16;
  uint64_t read_threads = 4;
  uint64_t max_streams = 1024;
  uint64_t max_streams_per_peer = 256;
  uint64_t max_bytes_in_flight = 64 * kMiB;
  uint64_t serve_rate = 0;
  bool pause_sync = false;
  uint64_t upload_parallelism = 2;
  uint64_t upload_rate = 0;
  uint64_t upload_max_attempts = 0;
  absl::Duration drain_timeout = absl::Minutes(5);
  std::string log_level = "info";
};

// What a command line asks for: to run with `options`, or to print `text` and leave.
struct DaemonCommand {
  DaemonOptions options;
  std::optional<std::string> text;
};

// Looks a variable up; nothing when it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// Reads flags (without the program's name), then the environment, then the file that --config
// names; the first that says something about an option is the one that counts. Empty members that
// have a default are filled in. InvalidArgument says which flag, variable or line of the file is
// wrong.
absl::StatusOr<DaemonCommand> ParseDaemonCommand(const std::vector<std::string>& arguments,
                                                 const Environment& environment);

// The options in force, as a file that --config takes.
std::string DumpConfig(const DaemonOptions& options);

}  // namespace peerchunk
