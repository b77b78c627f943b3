#include "service/active_calls.h"

#include <optional>
#include <vector>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(ActiveCallsTest, RefusesBeyondTheLimitOfOnePeerAndLetsOthersIn) {
  ActiveCalls calls(10, 2);
  auto a = calls.Admit("10.0.0.1");
  auto b = calls.Admit("10.0.0.1");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(calls.Admit("10.0.0.1").status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(calls.Admit("10.0.0.2").ok());
}

TEST(ActiveCallsTest, RefusesBeyondTheLimitOfAll) {
  ActiveCalls calls(1, 1);
  auto a = calls.Admit("10.0.0.1");
  ASSERT_TRUE(a.ok());
  EXPECT_EQ(calls.Admit("10.0.0.2").status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(ActiveCallsTest, PlaceIsFreeAgainWhenTheCallGoes) {
  ActiveCalls calls(1, 1);
  {
    auto a = calls.Admit("10.0.0.1");
    ASSERT_TRUE(a.ok());
    auto moved = *std::move(a);
    EXPECT_EQ(calls.count(), 1);
  }
  EXPECT_EQ(calls.count(), 0);
  EXPECT_TRUE(calls.Admit("10.0.0.2").ok());
}

}  // namespace
}  // namespace peerchunk
