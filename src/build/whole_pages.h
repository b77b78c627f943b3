#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "peerchunk/base/range.h"

namespace peerchunk {

// Fills `range` of a file of `size` bytes for who checks it page by page: `read(pages, to)` is
// asked for whole pages only (the file's last one may be short) and says whether to go on. False:
// it said no. Whole pages go straight to where they belong, those that are cut by the way of a
// page.
template <typename Read>
bool ReadInWholePages(ByteRange range, uint64_t size, char* out, const Read& read) {
  const uint64_t whole_end = range.end() == size ? size : range.end() / kPageBytes * kPageBytes;
  for (uint64_t at = range.offset; at < range.end();) {
    const uint64_t page = at / kPageBytes * kPageBytes;
    char* const target = out + (at - range.offset);
    if (at == page && at < whole_end) {
      if (!read(ByteRange{at, whole_end - at}, target)) return false;
      at = whole_end;
      continue;
    }
    char around[kPageBytes];
    const ByteRange whole{page, std::min(kPageBytes, size - page)};
    if (!read(whole, static_cast<char*>(around))) return false;
    const uint64_t take = std::min(whole.end(), range.end()) - at;
    std::memcpy(target, around + (at - page), take);
    at += take;
  }
  return true;
}

}  // namespace peerchunk
