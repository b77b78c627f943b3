#include "build/page_sums.h"

#include <algorithm>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/page_crc32c.h"

namespace peerchunk {
namespace {

uint32_t Append(uint32_t crc, uint32_t page, uint64_t page_length) {
  return page_length == kPageBytes ? CombineCrc32cOfPage(crc, page)
                                   : CombineCrc32c(crc, page, page_length);
}

}  // namespace

PageSums::PageSums(std::string_view block) {
  static const uint32_t crc_of_zero_page = Crc32cOfZeros(kPageBytes);
  for (uint64_t at = 0; at < block.size(); at += kPageBytes) {
    const std::string_view page = block.substr(at, kPageBytes);
    const uint32_t crc = Crc32c(page);
    const bool may_be_zero = page.size() < kPageBytes || crc == crc_of_zero_page;
    Set(at / kPageBytes, crc, may_be_zero && IsAllZero(page));
  }
}

void PageSums::Set(uint64_t index, uint32_t crc32c, bool zero) {
  crc32c_[index].store(crc32c, std::memory_order_relaxed);
  const uint64_t bit = uint64_t{1} << (index % kBits);
  std::atomic<uint64_t>& word = zero_[index / kBits];
  if (zero) {
    word.fetch_or(bit, std::memory_order_relaxed);
  } else {
    word.fetch_and(~bit, std::memory_order_relaxed);
  }
}

uint32_t PageSums::OfBlock(uint64_t length) const {
  uint32_t crc = 0;
  for (uint64_t at = 0; at < length; at += kPageBytes) {
    crc = Append(crc, CrcOf(at / kPageBytes), std::min(kPageBytes, length - at));
  }
  return crc;
}

bool PageSums::Matches(uint64_t index, std::string_view bytes) const {
  return Crc32c(bytes) == CrcOf(index);
}

std::vector<Run> PageSums::Runs(uint64_t offset, uint64_t length, uint64_t most_data_bytes) const {
  std::vector<Run> runs;
  const uint64_t first = offset / kPageBytes;
  const uint64_t pages = CeilDiv(length, kPageBytes);
  const uint64_t least_zeros = std::min(kMinZeroRunBytes, length);
  const auto length_of = [&](uint64_t page) {
    return std::min(kPageBytes, length - page * kPageBytes);
  };
  uint64_t data_left = most_data_bytes;
  Run data;  // Open while its length is not 0.
  const auto close = [&] {
    if (data.length > 0) runs.push_back(data);
    data = {};
  };
  for (uint64_t page = 0; page < pages;) {
    uint64_t end = page;
    while (end < pages && IsZero(first + end)) ++end;
    const uint64_t begin_byte = page * kPageBytes;
    const uint64_t zeros = std::min(end * kPageBytes, length) - begin_byte;
    if (zeros > 0 && zeros >= least_zeros) {
      close();
      runs.push_back({.offset = begin_byte, .length = zeros, .zero = true, .crc32c = 0});
      page = end;
      continue;
    }
    for (end = std::max(end, page + 1); page < end; ++page) {
      if (data.length == kMaxDataRunBytes) close();
      if (data_left < length_of(page)) {
        close();
        return runs;
      }
      if (data.length == 0) data.offset = page * kPageBytes;
      data.crc32c = Append(data.crc32c, CrcOf(first + page), length_of(page));
      data.length += length_of(page);
      data_left -= length_of(page);
    }
  }
  close();
  return runs;
}

}  // namespace peerchunk
