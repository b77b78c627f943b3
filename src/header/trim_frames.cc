#include "header/trim_frames.h"

#include <algorithm>

#include "header/validate.h"
#include "peerchunk/base/range.h"

namespace peerchunk::header {
namespace {

// Both ascending by start, frames without overlap.
std::vector<Frame> FramesOf(absl::Span<const Frame> frames, absl::Span<const ByteRange> reads) {
  std::vector<Frame> needed;
  uint64_t read_to = 0;  // end of the furthest read that starts before the frame's end
  auto read = reads.begin();
  for (const Frame& frame : frames) {
    for (; read != reads.end() && read->offset < frame.end_uncompressed(); ++read) {
      read_to = std::max(read_to, read->end());
    }
    if (read_to > frame.start_uncompressed) needed.push_back(frame);
  }
  return needed;
}

}  // namespace

std::vector<BuildRecord> TrimRecords(absl::Span<const BuildRecord> records,
                                     absl::Span<const Mapping> mappings) {
  std::vector<std::vector<ByteRange>> reads(records.size());
  for (const Mapping& m : mappings) {
    const BuildRecord* record = m.is_zero() ? nullptr : FindRecord(records, m.build_id);
    if (record != nullptr) {
      reads[record - records.data()].push_back({.offset = m.storage_offset, .length = m.length});
    }
  }
  std::vector<BuildRecord> kept;
  for (size_t i = 0; i < records.size(); ++i) {
    if (reads[i].empty()) continue;
    std::sort(reads[i].begin(), reads[i].end(),
              [](const ByteRange& a, const ByteRange& b) { return a.offset < b.offset; });
    const BuildRecord& from = records[i];
    kept.push_back({.build_id = from.build_id,
                    .file_size = from.file_size,
                    .sha256 = from.sha256,
                    .compression = from.compression,
                    .frames = FramesOf(from.frames, reads[i])});
  }
  return kept;
}

}  // namespace peerchunk::header
