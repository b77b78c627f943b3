#include "peerchunk/build/runs.h"

#include <algorithm>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"

namespace peerchunk {
namespace {

// Length of the run of zero pages at the start of `data`; a short last page counts when it is zero.
uint64_t LeadingZeros(std::string_view data) {
  uint64_t length = 0;
  while (length < data.size() && IsAllZero(data.substr(length, kPageBytes))) {
    length = std::min<uint64_t>(length + kPageBytes, data.size());
  }
  return length;
}

}  // namespace

std::vector<Run> CutIntoRuns(std::string_view bytes) {
  std::vector<Run> runs;
  uint64_t data_begin = 0;
  uint64_t at = 0;
  const auto emit_data = [&](uint64_t end) {
    for (uint64_t length = 0; data_begin < end; data_begin += length) {
      length = std::min(end - data_begin, kMaxDataRunBytes);
      runs.push_back({.offset = data_begin,
                      .length = length,
                      .zero = false,
                      .crc32c = Crc32c(bytes.substr(data_begin, length))});
    }
  };
  while (at < bytes.size()) {
    const uint64_t zeros = LeadingZeros(bytes.substr(at));
    if (zeros >= std::min<uint64_t>(kMinZeroRunBytes, bytes.size())) {
      emit_data(at);
      runs.push_back({.offset = at, .length = zeros, .zero = true, .crc32c = 0});
      at += zeros;
      data_begin = at;
    } else {
      at = std::min<uint64_t>(at + std::max(zeros, kPageBytes), bytes.size());
    }
  }
  emit_data(bytes.size());
  return runs;
}

}  // namespace peerchunk
