#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include <absl/status/statusor.h>

#include "peerchunk/base/range.h"
#include "peerchunk/build/build_file.h"
#include "service/buffer_pool.h"
#include "service/byte_budget.h"
#include "service/framing.h"

namespace peerchunk {

// Turns a range of a pinned file into extents, with zero runs left out and a checksum each. What
// is in memory comes a piece of at most 256 KiB at a time, without waiting; else a window of at
// most 1 MiB is read, on the file's grid of 1 MiB, which is that of the recorded checksums. Used by
// one thread at a time.
class ExtentSource {
 public:
  static constexpr uint64_t kWindowBytes = kMiB;
  static constexpr uint64_t kPieceBytes = 256 * kKiB;

  // `present_only`: stops at the first block that is not on this node.
  ExtentSource(std::shared_ptr<BuildFile> file, ByteRange range, bool present_only,
               std::shared_ptr<BufferPool> pool)
      : file_(std::move(file)),
        range_(range),
        present_only_(present_only),
        pool_(std::move(pool)),
        next_(range.offset) {}

  // Bytes of memory that the next TryRead, or the next Read, needs. 0: the range is done.
  uint64_t NextPieceBytes() const;
  uint64_t NextWindowBytes() const;

  // True when the next Read asks no other node and no store.
  bool NextIsHere() const;

  // Appends the extents of the next piece if that takes no waiting. `lease` accounts for the memory
  // and goes with the data's slices; it is left alone when this is false.
  bool TryRead(ByteBudget::Lease& lease, const ReadOptions& options,
               std::deque<OutgoingExtent>& out);

  // Reads the next window and appends its extents, up to where a block is missing that `options`
  // does not let it fetch.
  absl::Status Read(ByteBudget::Lease lease, const ReadOptions& options,
                    std::deque<OutgoingExtent>& out);

  bool done() const { return stopped_short_ || next_ >= range_.end(); }
  bool stopped_short() const { return stopped_short_; }
  uint64_t next_offset() const { return next_; }

 private:
  const std::shared_ptr<BuildFile> file_;
  const ByteRange range_;
  const bool present_only_;
  const std::shared_ptr<BufferPool> pool_;
  uint64_t next_;
  bool stopped_short_ = false;
};

}  // namespace peerchunk
