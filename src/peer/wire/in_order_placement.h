#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <absl/types/span.h>

namespace peerchunk {

// Says where the data of a GetBuildFile call go while its messages still arrive: straight to where
// their reader wants them. Nothing is checked yet, so each byte is given out once and in order, and
// what a reader has accepted is never written again, whatever the peer sends. What does not come in
// order, or is not as ChunkService writes it, is left to the reader to judge; from then on nothing
// is placed. One thread at a time.
class InOrderPlacement {
 public:
  // The bytes [offset, offset + memory.size()) of the file go to `memory`.
  InOrderPlacement(uint64_t offset, absl::Span<char> memory) : next_(offset), memory_(memory) {}

  // Called once for each message, in order. `head` is how it begins: all of it, or at least
  // kHeadBytes. Where its last bytes go, which are the data of its extent; empty: not to `memory`.
  absl::Span<char> Place(std::string_view head, size_t message_bytes);

  // All that stands before the data fits, but in a message that is unusual.
  static constexpr size_t kHeadBytes = 512;

 private:
  uint64_t next_;            // In the file.
  absl::Span<char> memory_;  // For what comes from there on.
};

}  // namespace peerchunk
