#include <algorithm>
#include <memory>

#include "base/sparse_file.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/build/local_build_file.h"

namespace peerchunk {

absl::StatusOr<FileChecksums> FileChecksums::Compute(const File& file) {
  FileChecksums sums;
  PEERCHUNK_ASSIGN_OR_RETURN(sums.size, file.Size());
  sums.block_crc32c.reserve(CeilDiv(sums.size, kBlockBytes));
  const auto buffer = std::make_unique_for_overwrite<char[]>(kBlockBytes);
  const uint32_t crc_of_zero_block = Crc32cOfZeros(kBlockBytes);

  FileSegment segment;
  for (uint64_t offset = 0; offset < sums.size; offset += kBlockBytes) {
    const uint64_t length = std::min(kBlockBytes, sums.size - offset);
    if (segment.end <= offset) {
      PEERCHUNK_ASSIGN_OR_RETURN(segment, SegmentAt(file, offset, sums.size));
    }
    uint32_t crc = 0;
    if (segment.hole && segment.end >= offset + length) {
      crc = length == kBlockBytes ? crc_of_zero_block : Crc32cOfZeros(length);
    } else {
      PEERCHUNK_ASSIGN_OR_RETURN(const size_t got,
                                 file.ReadAt(offset, absl::MakeSpan(buffer.get(), length)));
      if (got != length) {
        return absl::FailedPreconditionError("the file shrank while its checksums were computed");
      }
      crc = Crc32c(std::string_view(buffer.get(), length));
    }
    sums.block_crc32c.push_back(crc);
    sums.crc32c = CombineCrc32c(sums.crc32c, crc, length);
  }
  return sums;
}

}  // namespace peerchunk
