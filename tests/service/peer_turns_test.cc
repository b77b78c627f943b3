#include "service/peer_turns.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/build/held_executor.h"

namespace peerchunk {
namespace {

class PeerTurnsTest : public testing::Test {
 protected:
  void Add(const std::string& peer, Priority lane = Priority::kDemand) {
    turns_.Run(peer, lane, [this, peer] { order_ += peer; });
  }

  test::HeldExecutor held_;
  PeerTurns turns_{&held_};
  std::string order_;
};

TEST_F(PeerTurnsTest, APeerWithManyTasksHoldsUpAnotherByOne) {
  for (int i = 0; i < 1000; ++i) Add("a");
  ASSERT_TRUE(held_.RunNext());
  Add("b");
  Add("c");
  Add("b");
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(held_.RunNext());
  EXPECT_EQ(order_, "aabcaba");
  held_.RunAll();
  EXPECT_EQ(order_.size(), 1003u) << "each of them, once";
}

TEST_F(PeerTurnsTest, TheTasksOfOnePeerRunInOrder) {
  std::string order;
  for (char name = 'a'; name <= 'e'; ++name) {
    turns_.Run("peer", Priority::kDemand, [&order, name] { order += name; });
  }
  held_.RunAll();
  EXPECT_EQ(order, "abcde");
}

TEST_F(PeerTurnsTest, DemandOfAnyPeerGoesBeforePrefetch) {
  Add("a", Priority::kPrefetch);
  Add("a", Priority::kPrefetch);
  Add("b", Priority::kPrefetch);
  Add("c");
  Add("c");
  held_.RunAll();
  EXPECT_EQ(order_, "ccaba");
}

TEST_F(PeerTurnsTest, ATaskMayAddTheNextOneOfItsPeer) {
  turns_.Run("a", Priority::kDemand, [this] {
    order_ += "a";
    Add("a");
  });
  Add("b");
  held_.RunAll();
  EXPECT_EQ(order_, "aba");
}

}  // namespace
}  // namespace peerchunk
