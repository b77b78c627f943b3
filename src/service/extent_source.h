#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include <absl/status/statusor.h>

#include "peerchunk/base/range.h"
#include "peerchunk/build/build_file.h"
#include "service/byte_budget.h"
#include "service/framing.h"

namespace peerchunk {

// Turns a range of a pinned file into extents, a window of at most 1 MiB at a time: read, zero runs
// left out, with a checksum each. Windows lie on the file's 1 MiB grid, which is the grid of the
// recorded checksums. Used by one thread at a time.
class ExtentSource {
 public:
  static constexpr uint64_t kWindowBytes = 1024 * 1024;

  // `present_only`: stops at the first block that is not on this node.
  ExtentSource(std::shared_ptr<BuildFile> file, ByteRange range, bool present_only)
      : file_(std::move(file)), range_(range), present_only_(present_only), next_(range.offset) {}

  // Bytes of memory that the next Read needs. 0: the range is done.
  uint64_t NextWindowBytes() const;

  // Reads the next window into memory that `lease` accounts for and appends its extents. The lease
  // goes with the data's slices.
  absl::Status Read(ByteBudget::Lease lease, const ReadOptions& options,
                    std::deque<OutgoingExtent>& out);

  bool done() const { return stopped_short_ || next_ >= range_.end(); }
  bool stopped_short() const { return stopped_short_; }
  uint64_t next_offset() const { return next_; }

 private:
  const std::shared_ptr<BuildFile> file_;
  const ByteRange range_;
  const bool present_only_;
  uint64_t next_;
  bool stopped_short_ = false;
};

}  // namespace peerchunk
