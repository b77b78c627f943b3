#include "base/adaptive_polling.h"

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

class AdaptivePollingTest : public testing::Test {
 protected:
  void Wait(absl::Duration each, int times) {
    for (int i = 0; i < times; ++i) polling_.Waited(each);
  }
  bool Polls() const { return polling_.Patience() > absl::ZeroDuration(); }

  AdaptivePolling polling_{/*cores=*/2};
};

TEST(AdaptivePollingOnOneCoreTest, NothingIsPolled) {
  for (const unsigned cores : {0u, 1u}) {
    AdaptivePolling polling(cores);
    EXPECT_EQ(polling.Patience(), absl::ZeroDuration());
    for (int i = 0; i < 100; ++i) polling.Waited(absl::Microseconds(1));
    EXPECT_EQ(polling.Patience(), absl::ZeroDuration());
  }
}

TEST_F(AdaptivePollingTest, ShortWaitsArePolled) {
  EXPECT_TRUE(Polls());
  Wait(absl::Microseconds(50), 100);
  EXPECT_TRUE(Polls());
}

TEST_F(AdaptivePollingTest, LongWaitsAreNot) {
  Wait(absl::Milliseconds(5), 3);
  EXPECT_FALSE(Polls());
  Wait(absl::Microseconds(300), 100);
  EXPECT_FALSE(Polls());
}

// Else a reader that comes back after an hour would be served slowly for its first hundred reads.
TEST_F(AdaptivePollingTest, OnePauseIsForgottenAfterAFewShortWaits) {
  Wait(absl::Microseconds(50), 100);
  Wait(absl::Hours(1), 1);
  Wait(absl::Microseconds(50), 5);
  EXPECT_TRUE(Polls());
}

TEST_F(AdaptivePollingTest, ManyPausesNeedMore) {
  Wait(absl::Hours(1), 100);
  Wait(absl::Microseconds(50), 10);
  EXPECT_FALSE(Polls());
  Wait(absl::Microseconds(50), 20);
  EXPECT_TRUE(Polls());
}

}  // namespace
}  // namespace peerchunk
