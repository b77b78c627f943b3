#include "service/byte_budget.h"

#include <algorithm>
#include <vector>

namespace peerchunk {

ByteBudget::Lease& ByteBudget::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    Release();
    account_ = std::move(other.account_);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void ByteBudget::Lease::ShrinkTo(uint64_t bytes) {
  if (account_ == nullptr || bytes >= bytes_) return;
  account_->budget_->GiveBack(account_, std::exchange(bytes_, bytes) - bytes);
}

void ByteBudget::Lease::Merge(Lease other) {
  if (account_ == nullptr) {
    *this = std::move(other);
    return;
  }
  bytes_ += std::exchange(other.bytes_, 0);
}

void ByteBudget::Lease::Release() {
  if (account_ == nullptr) return;
  const std::shared_ptr<Account> account = std::move(account_);
  account->budget_->GiveBack(account, std::exchange(bytes_, 0));
}

ByteBudget::ByteBudget(const Options& options)
    : options_(options),
      reserve_(std::min(options.demand_reserve_bytes, options.limit_bytes / 4)) {}

std::shared_ptr<ByteBudget::Account> ByteBudget::For(const std::string& peer) {
  const MutexLock lock(mutex_);
  std::weak_ptr<Account>& known = accounts_[peer];
  std::shared_ptr<Account> account = known.lock();
  if (account == nullptr) {
    account = std::shared_ptr<Account>(new Account(shared_from_this(), peer));
    known = account;
  }
  return account;
}

ByteBudget::Account::~Account() {
  const MutexLock lock(budget_->mutex_);
  for (std::deque<Account*>& turns : budget_->turns_) std::erase(turns, this);
  const auto found = budget_->accounts_.find(peer_);
  // A new one may have taken its place meanwhile.
  if (found != budget_->accounts_.end() && found->second.expired()) {
    budget_->accounts_.erase(found);
  }
}

uint64_t ByteBudget::LimitOf(Priority lane) const {
  return lane == Priority::kDemand ? options_.limit_bytes : options_.limit_bytes - reserve_;
}

ByteBudget::Answer ByteBudget::MayTake(const Account& account, Priority lane,
                                       uint64_t bytes) const {
  if (account.in_use_ > 0) {
    const uint64_t left_by_others = options_.limit_bytes - (in_use_ - account.in_use_);
    uint64_t share = std::min(options_.limit_bytes / 4, left_by_others / 2);
    if (lane == Priority::kPrefetch) share -= share / 4;  // Its own faults find some, too.
    if (account.in_use_ + bytes > share) return Answer::kNotThisPeer;
  }
  return in_use_ + bytes > LimitOf(lane) ? Answer::kNobody : Answer::kYes;
}

void ByteBudget::TakeLocked(Account& account, uint64_t bytes) {
  in_use_ += bytes;
  account.in_use_ += bytes;
  if (options_.in_use != nullptr) options_.in_use->Set(static_cast<int64_t>(in_use_));
  if (in_use_ <= peak_) return;
  peak_ = in_use_;
  if (options_.peak != nullptr) options_.peak->Set(static_cast<int64_t>(peak_));
}

std::optional<ByteBudget::Lease> ByteBudget::Account::TryAcquire(Priority lane, uint64_t bytes) {
  bytes = std::min(bytes, budget_->LimitOf(lane));
  {
    const MutexLock lock(budget_->mutex_);
    for (size_t first = 0; first <= Index(lane); ++first) {
      if (!waiters_[first].empty()) return std::nullopt;
    }
    if (budget_->MayTake(*this, lane, bytes) != Answer::kYes) return std::nullopt;
    // Others who wait for more than is free go first; who waits for its own share only does not.
    for (size_t first = 0; first <= Index(lane); ++first) {
      for (const Account* other : budget_->turns_[first]) {
        const uint64_t wanted = other->waiters_[first].begin()->second.bytes;
        if (budget_->MayTake(*other, static_cast<Priority>(first), wanted) == Answer::kNobody) {
          return std::nullopt;
        }
      }
    }
    budget_->TakeLocked(*this, bytes);
  }
  return Lease(shared_from_this(), bytes);
}

ByteBudget::Ticket ByteBudget::Account::Acquire(Priority lane, uint64_t bytes,
                                                std::function<void(Lease)> then) {
  bytes = std::min(bytes, budget_->LimitOf(lane));
  Ticket ticket = 0;
  {
    const MutexLock lock(budget_->mutex_);
    ticket = ++budget_->last_ticket_;
    std::map<Ticket, Waiter>& line = waiters_[Index(lane)];
    if (line.empty()) budget_->turns_[Index(lane)].push_back(this);
    line.emplace(ticket, Waiter{bytes, std::move(then)});
  }
  budget_->GrantWaiting();
  return ticket;
}

bool ByteBudget::Account::Forget(Priority lane, Ticket ticket) {
  Waiter forgotten;  // Goes after the lock: it may hold the last of a call, and that this.
  const std::shared_ptr<Account> self = shared_from_this();
  {
    const MutexLock lock(budget_->mutex_);
    std::map<Ticket, Waiter>& line = waiters_[Index(lane)];
    const auto found = line.find(ticket);
    if (found == line.end()) return false;
    forgotten = std::move(found->second);
    line.erase(found);
    if (line.empty()) std::erase(budget_->turns_[Index(lane)], this);
  }
  budget_->GrantWaiting();  // It may have stood in the way.
  return true;
}

void ByteBudget::GiveBack(const std::shared_ptr<Account>& account, uint64_t bytes) {
  {
    const MutexLock lock(mutex_);
    in_use_ -= bytes;
    account->in_use_ -= bytes;
    if (options_.in_use != nullptr) options_.in_use->Set(static_cast<int64_t>(in_use_));
    if (turns_[0].empty() && turns_[1].empty()) return;
  }
  GrantWaiting();
}

void ByteBudget::GrantWaiting() {
  std::vector<std::pair<Waiter, Lease>> granted;
  {
    const MutexLock lock(mutex_);
    for (const Priority lane : {Priority::kDemand, Priority::kPrefetch}) {
      std::deque<Account*>& turns = turns_[Index(lane)];
      bool nobody = false;
      // Once around without a grant is the end.
      for (size_t passed = 0; !nobody && passed < turns.size();) {
        Account* const account = turns.front();
        std::map<Ticket, Waiter>& line = account->waiters_[Index(lane)];
        const uint64_t bytes = line.begin()->second.bytes;
        const Answer answer = MayTake(*account, lane, bytes);
        if (answer == Answer::kNobody) {
          nobody = true;
          continue;
        }
        turns.pop_front();
        if (answer == Answer::kYes) {
          TakeLocked(*account, bytes);
          granted.emplace_back(std::move(line.begin()->second),
                               Lease(account->shared_from_this(), bytes));
          line.erase(line.begin());
          passed = 0;
        } else {
          ++passed;
        }
        if (!line.empty()) turns.push_back(account);
      }
      if (nobody) break;  // What is free is kept for who goes first.
    }
  }
  for (auto& [waiter, lease] : granted) waiter.then(std::move(lease));
}

uint64_t ByteBudget::in_use() const {
  const MutexLock lock(mutex_);
  return in_use_;
}

uint64_t ByteBudget::peak() const {
  const MutexLock lock(mutex_);
  return peak_;
}

size_t ByteBudget::waiting() const {
  const MutexLock lock(mutex_);
  size_t count = 0;
  for (size_t lane = 0; lane < turns_.size(); ++lane) {
    for (const Account* account : turns_[lane]) count += account->waiters_[lane].size();
  }
  return count;
}

}  // namespace peerchunk
