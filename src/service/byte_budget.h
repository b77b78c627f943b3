#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "peerchunk/base/mutex.h"

namespace peerchunk {

// The memory that all streams together may hold. Who asks when it is used up waits in line, first
// come first served, without a thread: the continuation runs when the bytes are there. Thread-safe;
// shared with the slices under way, which give their bytes back on whatever thread gRPC lets go of
// them.
class ByteBudget : public std::enable_shared_from_this<ByteBudget> {
 public:
  // A share of the budget, given back when it goes.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept
        : budget_(std::move(other.budget_)), bytes_(std::exchange(other.bytes_, 0)) {}
    Lease& operator=(Lease&& other) noexcept;
    ~Lease() { Release(); }

    uint64_t bytes() const { return bytes_; }
    // Gives back all but `bytes`.
    void ShrinkTo(uint64_t bytes);
    void Release();

   private:
    friend class ByteBudget;
    Lease(std::shared_ptr<ByteBudget> budget, uint64_t bytes)
        : budget_(std::move(budget)), bytes_(bytes) {}

    std::shared_ptr<ByteBudget> budget_;
    uint64_t bytes_ = 0;
  };

  explicit ByteBudget(uint64_t limit_bytes) : limit_(limit_bytes) {}

  // Runs `then` with a lease of `bytes` (at most the limit): now, on this thread, when they are
  // free and nobody waits; else later, on the thread that frees them. `then` must not block.
  void Acquire(uint64_t bytes, std::function<void(Lease)> then);

  // A lease when the bytes are free and nobody waits.
  std::optional<Lease> TryAcquire(uint64_t bytes);

  uint64_t in_use() const;
  size_t waiting() const;

 private:
  struct Waiter {
    uint64_t bytes;
    std::function<void(Lease)> then;
  };
  void GiveBack(uint64_t bytes);

  const uint64_t limit_;
  mutable Mutex mutex_;
  uint64_t in_use_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  std::deque<Waiter> waiters_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
