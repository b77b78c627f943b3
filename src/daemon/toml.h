#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

namespace peerchunk {

// One `key = value` line of a configuration file. A single value is a list of one.
struct TomlEntry {
  std::string key;
  std::vector<std::string> values;
  bool is_array = false;
  int line = 0;
};

// Reads the part of TOML 1.0 that a flat configuration needs: bare keys, strings (basic and
// literal), integers, booleans, arrays of these over one or more lines, comments. CLI11's own
// reader takes '#' inside a string for a comment and skips what it does not understand; this one
// refuses it. InvalidArgument names the line; so does a key given twice. Tables are refused.
absl::StatusOr<std::vector<TomlEntry>> ParseToml(std::string_view text);

// `text` as a basic string, in quotes.
std::string QuoteToml(std::string_view text);

}  // namespace peerchunk
