#include <cstdint>

#include <grpcpp/support/byte_buffer.h>

#include "peer/grpc/message_decoder.h"

// Any bytes from a peer give a message or an error. The first byte says where the rest is cut in
// two.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t cut = data[0] % size;  // At most size - 1.
  const grpc::Slice slices[] = {grpc::Slice(data + 1, cut),
                                grpc::Slice(data + 1 + cut, size - 1 - cut)};
  const auto decoded = peerchunk::MessageDecoder::Decode(grpc::ByteBuffer(slices, 2));
  if (decoded.ok() && decoded->message().extent) {
    uint64_t total = 0;
    for (std::string_view piece : decoded->message().extent->pieces) total += piece.size();
    const auto& extent = *decoded->message().extent;
    if (!extent.zero && total != extent.length) __builtin_trap();
  }
  return 0;
}
