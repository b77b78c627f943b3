#pragma once

#include <cstddef>
#include <string_view>

#include <nlohmann/json.hpp>

namespace peerchunk {

// Deeper than anything that is read here. What goes down into a value once per level (dump, copies)
// would run out of stack on hostile bytes, and each level takes a hundred times its one byte.
inline constexpr size_t kMaxJsonDepth = 64;

// A value that is_discarded() for what is not JSON, or is nested too deeply. Never throws.
inline nlohmann::json ParseJson(std::string_view text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;  // The next one is escaped, whatever it is.
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) return nlohmann::json(nlohmann::json::value_t::discarded);
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace peerchunk
