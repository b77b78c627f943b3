#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include <absl/time/time.h>

#include "build/block_bitmap.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "template/working_set.h"

namespace peerchunk {

// A trace begins with the first read and goes on this long: what is read later belongs to the
// guest's work, not to its resume.
inline constexpr absl::Duration kTracedAfterFirstRead = absl::Seconds(10);
// It is worth keeping once reads have paused so long, or when it is over.
inline constexpr absl::Duration kTraceSettledAfter = absl::Seconds(2);

// The order in which the blocks of a device are first read after a resume, in bounded memory. Owned
// by its device; thread-safe. Noting a block again, or after the end, takes no lock.
class AccessTrace {
 public:
  // Larger devices are not traced: a bit per block is held.
  static constexpr uint64_t kMaxBlocks = uint64_t{1} << 27;

  AccessTrace(uint64_t device_bytes, uint64_t block_bytes, Clock* clock);

  void Note(uint64_t offset, uint64_t length);

  // What was noted, once it is settled and holds more than at the last call; else nothing.
  std::optional<WorkingSet> TakeSettled();

 private:
  const uint64_t block_bytes_;
  Clock* const clock_;
  BlockBitmap seen_;
  std::atomic<bool> over_{false};

  Mutex mutex_;
  std::vector<uint64_t> blocks_ PEERCHUNK_GUARDED_BY(mutex_);
  size_t taken_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  absl::Time first_ PEERCHUNK_GUARDED_BY(mutex_);
  absl::Time last_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
