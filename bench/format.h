#pragma once

#include <cstdio>
#include <string>

namespace peerchunk::bench {

// printf into a string, which is cut at 250 characters.
std::string Format(const char* format, auto... values) {
  char text[251];
  std::snprintf(text, sizeof(text), format, values...);
  return text;
}

}  // namespace peerchunk::bench
