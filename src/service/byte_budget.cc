#include "service/byte_budget.h"

#include <algorithm>
#include <vector>

namespace peerchunk {

ByteBudget::Lease& ByteBudget::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    Release();
    budget_ = std::move(other.budget_);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void ByteBudget::Lease::ShrinkTo(uint64_t bytes) {
  if (budget_ == nullptr || bytes >= bytes_) return;
  budget_->GiveBack(std::exchange(bytes_, bytes) - bytes);
}

void ByteBudget::Lease::Release() {
  if (budget_ == nullptr) return;
  budget_->GiveBack(std::exchange(bytes_, 0));
  budget_.reset();
}

std::optional<ByteBudget::Lease> ByteBudget::TryAcquire(uint64_t bytes) {
  bytes = std::min(bytes, limit_);
  MutexLock lock(mutex_);
  if (!waiters_.empty() || in_use_ + bytes > limit_) return std::nullopt;
  in_use_ += bytes;
  return Lease(shared_from_this(), bytes);
}

void ByteBudget::Acquire(uint64_t bytes, std::function<void(Lease)> then) {
  bytes = std::min(bytes, limit_);
  {
    MutexLock lock(mutex_);
    if (!waiters_.empty() || in_use_ + bytes > limit_) {
      waiters_.push_back({bytes, std::move(then)});
      return;
    }
    in_use_ += bytes;
  }
  then(Lease(shared_from_this(), bytes));
}

void ByteBudget::GiveBack(uint64_t bytes) {
  std::vector<Waiter> ready;
  {
    MutexLock lock(mutex_);
    in_use_ -= bytes;
    while (!waiters_.empty() && in_use_ + waiters_.front().bytes <= limit_) {
      in_use_ += waiters_.front().bytes;
      ready.push_back(std::move(waiters_.front()));
      waiters_.pop_front();
    }
  }
  for (Waiter& waiter : ready) waiter.then(Lease(shared_from_this(), waiter.bytes));
}

uint64_t ByteBudget::in_use() const {
  MutexLock lock(mutex_);
  return in_use_;
}

size_t ByteBudget::waiting() const {
  MutexLock lock(mutex_);
  return waiters_.size();
}

}  // namespace peerchunk
