#include "service/byte_budget.h"

#include <deque>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

class ByteBudgetTest : public testing::Test {
 protected:
  using Account = std::shared_ptr<ByteBudget::Account>;

  ~ByteBudgetTest() override {
    while (!leases_.empty()) {  // Who still waits gets some of it.
      const ByteBudget::Lease lease = std::move(leases_.front());
      leases_.pop_front();
    }
  }

  void Open(uint64_t limit, uint64_t reserve = 0) {
    budget_ = std::make_shared<ByteBudget>(
        ByteBudget::Options{.limit_bytes = limit, .demand_reserve_bytes = reserve});
  }
  // Asks for `bytes`; who got some is in `order_`, with `name`.
  ByteBudget::Ticket Ask(const Account& account, std::string name, uint64_t bytes,
                         Priority lane = Priority::kDemand) {
    accounts_.push_back(account);
    return account->Acquire(lane, bytes, [this, name](ByteBudget::Lease given) {
      order_.push_back(name);
      leases_.push_back(std::move(given));
    });
  }

  std::shared_ptr<ByteBudget> budget_;
  std::vector<Account> accounts_;  // As calls that wait keep theirs.
  std::vector<std::string> order_;
  std::deque<ByteBudget::Lease> leases_;  // Releasing one adds others.
};

TEST_F(ByteBudgetTest, GrantsAtOnceWhileThereIsRoom) {
  Open(100);
  auto lease = budget_->For("a")->TryAcquire(Priority::kDemand, 60);
  ASSERT_TRUE(lease.has_value());
  EXPECT_EQ(lease->bytes(), 60);
  EXPECT_EQ(budget_->in_use(), 60);
  lease->Release();
  EXPECT_EQ(budget_->in_use(), 0);
  EXPECT_EQ(budget_->peak(), 60);
}

TEST_F(ByteBudgetTest, APeerGetsAQuarterAndHalfOfWhatOthersLeave) {
  Open(1600);
  std::vector<ByteBudget::Lease> leases;
  const auto take_all = [&](const Account& account) {
    uint64_t got = 0;
    while (auto lease = account->TryAcquire(Priority::kDemand, 25)) {
      got += lease->bytes();
      leases.push_back(*std::move(lease));
    }
    return got;
  };
  std::vector<Account> accounts;
  std::vector<uint64_t> got;
  for (const char* const peer : {"a", "b", "c", "d", "e", "f"}) {
    accounts.push_back(budget_->For(peer));
    got.push_back(take_all(accounts.back()));
  }
  EXPECT_EQ(got, (std::vector<uint64_t>{400, 400, 400, 200, 100, 50}));
  EXPECT_LT(budget_->in_use(), 1600) << "somebody who comes now gets nothing";
}

TEST_F(ByteBudgetTest, APeerThatHoldsNothingMayTakeMoreThanItsShareOnce) {
  Open(100);
  const Account account = budget_->For("a");
  const auto lease = account->TryAcquire(Priority::kDemand, 90);
  EXPECT_TRUE(lease.has_value());
  EXPECT_FALSE(account->TryAcquire(Priority::kDemand, 1).has_value());
}

TEST_F(ByteBudgetTest, OneRequestOverTheLimitIsCutSoThatItCanEverBeGranted) {
  Open(100, 25);
  Ask(budget_->For("a"), "demand", 1000);
  EXPECT_EQ(leases_[0].bytes(), 100);
  leases_.clear();
  Ask(budget_->For("a"), "prefetch", 1000, Priority::kPrefetch);
  EXPECT_EQ(leases_[0].bytes(), 75);
}

TEST_F(ByteBudgetTest, OnePeersRequestsWaitInOrder) {
  Open(100);
  const Account a = budget_->For("a");
  Ask(a, "1", 100);
  Ask(a, "2", 80);
  Ask(a, "3", 10);  // Would fit after the second only; must not overtake it.
  EXPECT_EQ(budget_->waiting(), 2);
  leases_[0].Release();
  EXPECT_EQ(order_, (std::vector<std::string>{"1", "2"}));
  leases_[1].Release();
  EXPECT_EQ(order_, (std::vector<std::string>{"1", "2", "3"}));
  EXPECT_EQ(budget_->waiting(), 0);
}

TEST_F(ByteBudgetTest, PeersTakeTurns) {
  Open(100);
  const Account a = budget_->For("a");
  const Account b = budget_->For("b");
  const Account c = budget_->For("c");
  Ask(c, "c", 100);
  for (int i = 0; i < 3; ++i) Ask(a, "a", 60);
  for (int i = 0; i < 3; ++i) Ask(b, "b", 60);
  for (size_t i = 0; i < 7; ++i) leases_[i].Release();
  EXPECT_EQ(order_, (std::vector<std::string>{"c", "a", "b", "a", "b", "a", "b"}));
}

TEST_F(ByteBudgetTest, APeerThatWaitsForItsOwnShareHoldsUpNobody) {
  Open(100);
  const Account hostile = budget_->For("hostile");
  Ask(hostile, "h", 60);
  for (int i = 0; i < 5; ++i) Ask(hostile, "h", 30);
  Ask(budget_->For("b"), "b", 30);
  EXPECT_TRUE(budget_->For("c")->TryAcquire(Priority::kPrefetch, 10).has_value());
  EXPECT_EQ(order_, (std::vector<std::string>{"h", "b"}));
}

TEST_F(ByteBudgetTest, DemandGoesFirstAndHasSomethingInReserve) {
  Open(100, 25);
  const Account a = budget_->For("a");
  const Account b = budget_->For("b");
  Ask(a, "prefetch", 75, Priority::kPrefetch);
  Ask(b, "prefetch", 10, Priority::kPrefetch);
  EXPECT_EQ(budget_->waiting(), 1);
  Ask(b, "demand", 20);
  EXPECT_EQ(order_, (std::vector<std::string>{"prefetch", "demand"}));
  Ask(budget_->For("c"), "late demand", 60);
  leases_[0].Release();
  EXPECT_EQ(order_[2], "late demand");
}

TEST_F(ByteBudgetTest, WhoLeavesTheLineIsNotServedAndStandsInNobodysWay) {
  Open(100);
  const Account a = budget_->For("a");
  const Account b = budget_->For("b");
  Ask(a, "first", 50);
  const auto ticket = Ask(b, "leaves", 90);
  Ask(budget_->For("c"), "next", 40);
  EXPECT_EQ(order_.size(), 1u);
  EXPECT_TRUE(b->Forget(Priority::kDemand, ticket));
  EXPECT_FALSE(b->Forget(Priority::kDemand, ticket));
  EXPECT_EQ(order_, (std::vector<std::string>{"first", "next"}));
}

TEST_F(ByteBudgetTest, LeaseGivesBackOnceWhenMovedMergedOrShrunk) {
  Open(1000);
  const Account a = budget_->For("a");
  {
    auto first = *a->TryAcquire(Priority::kDemand, 40);
    ByteBudget::Lease inner = std::move(first);
    inner.Merge(*a->TryAcquire(Priority::kDemand, 20));
    EXPECT_EQ(inner.bytes(), 60);
    inner.ShrinkTo(10);
    EXPECT_EQ(budget_->in_use(), 10);
  }
  EXPECT_EQ(budget_->in_use(), 0);
}

}  // namespace
}  // namespace peerchunk
