#pragma once

#include <functional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/types/span.h>

#include "daemon/options.h"

namespace peerchunk {

// One option of peerchunkd, under the one name that its flag ("--name"), its variable
// ("PEERCHUNK_NAME") and its key ("name") share.
struct OptionSpec {
  enum class Kind { kText, kNumber, kSwitch, kList };

  std::string name;
  Kind kind = Kind::kText;
  std::string group;     // Of --help.
  std::string argument;  // What stands for the value in --help.
  std::string help;
  // Takes the values that were given: exactly one unless kList.
  std::function<absl::Status(DaemonOptions&, const std::vector<std::string>&)> set;
  std::function<std::vector<std::string>(const DaemonOptions&)> get;

  std::string variable() const;
};

absl::Span<const OptionSpec> DaemonOptionTable();

}  // namespace peerchunk
