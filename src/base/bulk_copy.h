#pragma once

#include <cstddef>

namespace peerchunk {

// memcpy for what is large and not read again soon: where the processor can (AVX), the bytes go
// past its caches, which saves reading the destination's lines first and keeps in the caches what
// is there. Falls back to memcpy.
void CopyPastCaches(char* to, const char* from, size_t length);

}  // namespace peerchunk
