#include "base/tune_malloc.h"

#include <malloc.h>

namespace peerchunk {

void TuneMalloc() {
  mallopt(M_TRIM_THRESHOLD, 256 * 1024 * 1024);
  mallopt(M_TOP_PAD, 16 * 1024 * 1024);
  mallopt(M_MMAP_THRESHOLD, 8 * 1024 * 1024);
}

}  // namespace peerchunk
