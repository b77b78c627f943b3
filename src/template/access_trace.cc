#include "template/access_trace.h"

#include "peerchunk/base/range.h"

namespace peerchunk {

AccessTrace::AccessTrace(uint64_t device_bytes, uint64_t block_bytes, Clock* clock)
    : block_bytes_(block_bytes),
      clock_(clock),
      seen_(CeilDiv(device_bytes, block_bytes) <= kMaxBlocks ? CeilDiv(device_bytes, block_bytes)
                                                             : 0),
      over_(seen_.blocks() == 0) {}

void AccessTrace::Note(uint64_t offset, uint64_t length) {
  if (length == 0 || over_.load(std::memory_order_relaxed)) return;
  const uint64_t begin = offset / block_bytes_;
  const uint64_t end = CeilDiv(offset + length, block_bytes_);
  if (seen_.FindUnset(begin, end) == end) return;
  const MutexLock lock(mutex_);
  const absl::Time now = clock_->Now();
  if (blocks_.empty()) first_ = now;
  if (now > first_ + kTracedAfterFirstRead) {
    over_.store(true, std::memory_order_relaxed);
    return;
  }
  for (uint64_t block = begin; block < end; ++block) {
    if (blocks_.size() == kMaxWorkingSetBlocks) {
      over_.store(true, std::memory_order_relaxed);
      return;
    }
    if (seen_.Set(block, block + 1) == 0) continue;
    blocks_.push_back(block);
    last_ = now;
  }
}

std::optional<WorkingSet> AccessTrace::TakeSettled() {
  const MutexLock lock(mutex_);
  if (blocks_.size() == taken_) return std::nullopt;
  const absl::Time now = clock_->Now();
  if (now < last_ + kTraceSettledAfter && now < first_ + kTracedAfterFirstRead) return std::nullopt;
  taken_ = blocks_.size();
  return WorkingSet{.block_bytes = block_bytes_, .blocks = blocks_};
}

}  // namespace peerchunk
