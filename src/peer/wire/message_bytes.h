#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace peerchunk {

// The bytes of one message where a transport put them, in order, and what keeps them there.
struct MessageBytes {
  std::vector<std::string_view> pieces;
  std::shared_ptr<const void> owner;

  size_t size() const {
    size_t sum = 0;
    for (const std::string_view piece : pieces) sum += piece.size();
    return sum;
  }
};

}  // namespace peerchunk
