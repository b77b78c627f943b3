#include "service/buffer_pool.h"

namespace peerchunk {

BufferPool::Buffer BufferPool::Take(uint64_t bytes) {
  // Small ones are malloc's own business.
  if (bytes <= kSmallBytes / 2 || bytes > kLargeBytes) {
    return Buffer(nullptr, std::make_unique_for_overwrite<char[]>(bytes), bytes);
  }
  const bool small = bytes <= kSmallBytes;
  const uint64_t capacity = small ? kSmallBytes : kLargeBytes;
  std::unique_ptr<char[]> memory;
  {
    const MutexLock lock(mutex_);
    auto& idle = small ? small_ : large_;
    if (!idle.empty()) {
      memory = std::move(idle.back());
      idle.pop_back();
      idle_bytes_ -= capacity;
    }
  }
  if (memory == nullptr) memory = std::make_unique_for_overwrite<char[]>(capacity);
  return Buffer(shared_from_this(), std::move(memory), capacity);
}

void BufferPool::GiveBack(std::unique_ptr<char[]> bytes, uint64_t capacity) {
  const MutexLock lock(mutex_);
  if (idle_bytes_ + capacity > most_idle_bytes_) return;
  idle_bytes_ += capacity;
  (capacity == kSmallBytes ? small_ : large_).push_back(std::move(bytes));
}

uint64_t BufferPool::idle_bytes() const {
  const MutexLock lock(mutex_);
  return idle_bytes_;
}

}  // namespace peerchunk
