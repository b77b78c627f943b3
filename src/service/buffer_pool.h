#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"

namespace peerchunk {

// Buffers for windows of a file, used again: memory that the process got from the kernel and
// touched once is not given back and fetched anew for each of them. Keeps a bounded number that
// nobody uses. Thread-safe; shared with the buffers, which come back on any thread.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  static constexpr uint64_t kSmallBytes = 256 * kKiB;
  static constexpr uint64_t kLargeBytes = kMiB;

  // Memory for `bytes`; given back when it goes.
  class Buffer {
   public:
    Buffer(Buffer&& other) noexcept = default;
    Buffer& operator=(Buffer&&) = delete;
    ~Buffer() {
      if (pool_ != nullptr && bytes_ != nullptr) pool_->GiveBack(std::move(bytes_), capacity_);
    }
    char* data() const { return bytes_.get(); }

   private:
    friend class BufferPool;
    Buffer(std::shared_ptr<BufferPool> pool, std::unique_ptr<char[]> bytes, uint64_t capacity)
        : pool_(std::move(pool)), bytes_(std::move(bytes)), capacity_(capacity) {}
    std::shared_ptr<BufferPool> pool_;  // Null: of no use to others.
    std::unique_ptr<char[]> bytes_;
    uint64_t capacity_;
  };

  explicit BufferPool(uint64_t most_idle_bytes) : most_idle_bytes_(most_idle_bytes) {}

  Buffer Take(uint64_t bytes);
  uint64_t idle_bytes() const;

 private:
  void GiveBack(std::unique_ptr<char[]> bytes, uint64_t capacity);

  const uint64_t most_idle_bytes_;
  mutable Mutex mutex_;
  uint64_t idle_bytes_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  // Last in, first out: what was used last is in a core's cache.
  std::vector<std::unique_ptr<char[]>> small_ PEERCHUNK_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<char[]>> large_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
