#include <cstdio>

#include "peerchunk/header/header.h"

int main() {
  const auto header = peerchunk::Header::CreateIdentity(
      {.block_size = 4096, .size = 16384, .build_id = peerchunk::BuildId::Random()});
  if (!header.ok() || header->EncodedSize() != header->Encode().size()) return 1;
  std::printf("a header of %zu bytes\n", header->Encode().size());
  return 0;
}
