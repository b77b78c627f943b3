#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "peerchunk/base/executor.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk {

// The memory that all streams together may hold, divided between peers. A peer gets at most a
// quarter of it, and at most half of what the others leave, so whoever comes next finds some; a
// part is kept for demand. Who asks for more waits in line without a thread: the continuation runs
// when the bytes are there. Demand waits before prefetch, peers take turns in each lane, and the
// requests of one peer are served in order. Thread-safe; shared with the slices under way, which
// give their bytes back on whatever thread gRPC lets go of them.
class ByteBudget : public std::enable_shared_from_this<ByteBudget> {
 public:
  struct Options {
    uint64_t limit_bytes = 0;
    uint64_t demand_reserve_bytes = 0;  // Never given to prefetch; at most a quarter counts.
    Gauge* in_use = nullptr;            // Borrowed; may be null, as may the next.
    Gauge* peak = nullptr;
  };
  // A request that waits; 0 is none.
  using Ticket = uint64_t;

  class Lease;
  // What one peer holds and waits for. Kept by its calls and leases.
  class Account;

  explicit ByteBudget(const Options& options);

  // The account of `peer`, the same one as long as somebody keeps it.
  std::shared_ptr<Account> For(const std::string& peer);

  uint64_t in_use() const;
  uint64_t peak() const;
  size_t waiting() const;

 private:
  struct Waiter {
    uint64_t bytes;
    std::function<void(Lease)> then;
  };
  enum class Answer : uint8_t { kYes, kNotThisPeer, kNobody };

  static constexpr size_t Index(Priority lane) { return static_cast<size_t>(lane); }
  uint64_t LimitOf(Priority lane) const;
  Answer MayTake(const Account& account, Priority lane, uint64_t bytes) const
      PEERCHUNK_REQUIRES(mutex_);
  void TakeLocked(Account& account, uint64_t bytes) PEERCHUNK_REQUIRES(mutex_);
  void GiveBack(const std::shared_ptr<Account>& account, uint64_t bytes);
  void GrantWaiting();

  const Options options_;
  const uint64_t reserve_;
  mutable Mutex mutex_;
  uint64_t in_use_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  uint64_t peak_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  Ticket last_ticket_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::weak_ptr<Account>> accounts_ PEERCHUNK_GUARDED_BY(mutex_);
  // The accounts that wait, by lane, the next one first.
  std::array<std::deque<Account*>, 2> turns_ PEERCHUNK_GUARDED_BY(mutex_);
};

// A share of the budget, given back when it goes.
class ByteBudget::Lease {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept
      : account_(std::move(other.account_)), bytes_(std::exchange(other.bytes_, 0)) {}
  Lease& operator=(Lease&& other) noexcept;
  ~Lease() { Release(); }

  uint64_t bytes() const { return bytes_; }
  // Gives back all but `bytes`.
  void ShrinkTo(uint64_t bytes);
  // Takes over what `other`, of the same account, holds.
  void Merge(Lease other);
  void Release();

 private:
  friend class ByteBudget;
  Lease(std::shared_ptr<Account> account, uint64_t bytes)
      : account_(std::move(account)), bytes_(bytes) {}

  std::shared_ptr<Account> account_;
  uint64_t bytes_ = 0;
};

class ByteBudget::Account : public std::enable_shared_from_this<Account> {
 public:
  ~Account();
  Account(const Account&) = delete;
  Account& operator=(const Account&) = delete;

  // A lease when the bytes are free and nobody who goes first waits for them.
  std::optional<Lease> TryAcquire(Priority lane, uint64_t bytes);

  // Runs `then` with a lease of `bytes` (at most what its lane ever has): now, on this thread, when
  // TryAcquire would have given it; else later, on the thread that frees them. `then` must not
  // block.
  Ticket Acquire(Priority lane, uint64_t bytes, std::function<void(Lease)> then);

  // Takes a request out of the line; true: its `then` never runs.
  bool Forget(Priority lane, Ticket ticket);

 private:
  friend class ByteBudget;
  Account(std::shared_ptr<ByteBudget> budget, std::string peer)
      : budget_(std::move(budget)), peer_(std::move(peer)) {}

  const std::shared_ptr<ByteBudget> budget_;
  const std::string peer_;
  // Guarded by the budget's mutex.
  uint64_t in_use_ = 0;
  std::array<std::map<Ticket, Waiter>, 2> waiters_;
};

}  // namespace peerchunk
