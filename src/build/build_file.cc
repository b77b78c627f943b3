#include "peerchunk/build/build_file.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "peerchunk/base/status.h"

namespace peerchunk {

absl::StatusOr<std::vector<Run>> BuildFile::ReadRuns(uint64_t offset, absl::Span<char> out,
                                                     const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t length, ReadAt(offset, out, options));
  return CutIntoRuns(std::string_view(out.data(), length));
}

std::vector<Run> BuildFile::TryReadRuns(uint64_t offset, uint64_t length, absl::Span<char> out,
                                        const ReadOptions&) {
  const uint64_t take = PresentBytes(offset, std::min<uint64_t>(length, out.size()));
  if (take == 0 || !TryReadAt(offset, out.subspan(0, take))) return {};
  std::vector<Run> runs = CutIntoRuns(std::string_view(out.data(), take));
  uint64_t packed = 0;
  for (const Run& run : runs) {
    if (run.zero) continue;
    if (packed != run.offset)
      std::memmove(out.data() + packed, out.data() + run.offset, run.length);
    packed += run.length;
  }
  return runs;
}

}  // namespace peerchunk
