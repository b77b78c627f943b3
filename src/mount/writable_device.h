#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <absl/types/span.h>

#include "mount/block_set.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"
#include "peerchunk/template/template.h"

namespace peerchunk {

// A device of a template with an overlay of whole 4 KiB blocks over it: blocks that were written
// are read from the overlay, all others from the device, patiently. Owned by a mount; thread-safe.
class WritableDevice {
 public:
  struct Options {
    FileKind kind = FileKind::kMemfile;
    File overlay;  // Empty, and nobody else's.
    absl::Duration read_deadline;
    Clock* clock = &Clock::Real();
    Metrics* metrics = nullptr;
  };

  // `base` outlives this.
  WritableDevice(Device& base, Options options);
  ~WritableDevice();
  WritableDevice(const WritableDevice&) = delete;
  WritableDevice& operator=(const WritableDevice&) = delete;

  FileKind kind() const { return options_.kind; }
  uint64_t size() const { return base_.size(); }

  // Fills `out`; short only at the end; OutOfRange beyond it. An error of the device is returned
  // only when it cannot pass, or after the read deadline; Cancelled soon after `cancellation`.
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const std::stop_token& cancellation);
  // OutOfRange, and nothing written, when `data` does not fit.
  absl::Status WriteAt(uint64_t offset, std::string_view data, const std::stop_token& cancellation);

  std::vector<uint64_t> DirtyBlocks() const;

 private:
  class Claim;

  absl::Status ReadBase(uint64_t offset, absl::Span<char> out, const std::stop_token& cancellation);
  absl::Status FillBlock(uint64_t block, const std::stop_token& cancellation);
  bool Written(uint64_t block) const;
  // What the overlay holds has changed by so much.
  void CountOverlay(int64_t bytes);

  Device& base_;
  const Options options_;
  Counter* const read_bytes_;
  Counter* const retries_;
  Counter* const failures_;
  Gauge* const overlay_bytes_;

  mutable Mutex mutex_;
  CondVar released_;
  // Blocks whose bytes in the overlay are whole.
  BlockSet written_ PEERCHUNK_GUARDED_BY(mutex_);
  // Ranges of blocks that a write works on.
  std::vector<ByteRange> claimed_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
