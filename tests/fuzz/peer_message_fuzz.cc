#include <cstddef>
#include <cstdint>
#include <string_view>

#include "peer/wire/message_decoder.h"
#include "peer/wire/read_parts.h"

// Any bytes from a peer give a message or an error. The first byte says where the rest is cut in
// two.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t cut = data[0] % size;  // At most size - 1.
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const peerchunk::MessageBytes bytes{.pieces = {rest.substr(0, cut), rest.substr(cut)},
                                      .owner = nullptr};
  const auto parts = peerchunk::DecodeReadParts(bytes);
  if (parts.ok()) {
    for (const peerchunk::ReadPart& part : *parts) {
      if (part.error.ok() && part.message.size() > bytes.size()) __builtin_trap();
    }
  }
  const auto decoded = peerchunk::MessageDecoder::Decode(bytes);
  if (decoded.ok() && decoded->message().extent) {
    uint64_t total = 0;
    for (std::string_view piece : decoded->message().extent->pieces) total += piece.size();
    const auto& extent = *decoded->message().extent;
    if (!extent.zero && total != extent.length) __builtin_trap();
  }
  return 0;
}
