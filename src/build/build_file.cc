#include "peerchunk/build/build_file.h"

#include <string_view>

#include "peerchunk/base/status.h"

namespace peerchunk {

absl::StatusOr<std::vector<Run>> BuildFile::ReadRuns(uint64_t offset, absl::Span<char> out,
                                                     const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t length, ReadAt(offset, out, options));
  return CutIntoRuns(std::string_view(out.data(), length));
}

}  // namespace peerchunk
