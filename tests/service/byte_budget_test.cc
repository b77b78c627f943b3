#include "service/byte_budget.h"

#include <vector>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(ByteBudgetTest, GrantsAtOnceWhileThereIsRoom) {
  auto budget = std::make_shared<ByteBudget>(100);
  ByteBudget::Lease lease;
  budget->Acquire(60, [&](ByteBudget::Lease given) { lease = std::move(given); });
  EXPECT_EQ(lease.bytes(), 60);
  EXPECT_EQ(budget->in_use(), 60);
  lease.Release();
  EXPECT_EQ(budget->in_use(), 0);
}

TEST(ByteBudgetTest, WaitsInLineFirstComeFirstServed) {
  auto budget = std::make_shared<ByteBudget>(100);
  std::vector<int> order;
  std::vector<ByteBudget::Lease> leases;
  leases.reserve(3);  // Releasing the first adds the others.
  const auto take = [&](int who, uint64_t bytes) {
    budget->Acquire(bytes, [&, who](ByteBudget::Lease given) {
      order.push_back(who);
      leases.push_back(std::move(given));
    });
  };
  take(1, 100);
  take(2, 80);
  take(3, 10);  // Would fit after the second only; must not overtake it.
  EXPECT_EQ(budget->waiting(), 2);
  leases[0].Release();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(budget->in_use(), 90);
}

TEST(ByteBudgetTest, OneRequestOverTheLimitIsCutSoThatItCanEverBeGranted) {
  auto budget = std::make_shared<ByteBudget>(100);
  ByteBudget::Lease lease;
  budget->Acquire(1000, [&](ByteBudget::Lease given) { lease = std::move(given); });
  EXPECT_EQ(lease.bytes(), 100);
}

TEST(ByteBudgetTest, LeaseGivesBackOnceWhenMoved) {
  auto budget = std::make_shared<ByteBudget>(100);
  {
    ByteBudget::Lease outer;
    budget->Acquire(40, [&](ByteBudget::Lease given) { outer = std::move(given); });
    ByteBudget::Lease inner = std::move(outer);
    EXPECT_EQ(inner.bytes(), 40);
  }
  EXPECT_EQ(budget->in_use(), 0);
}

}  // namespace
}  // namespace peerchunk
