#include "node/change_gate.h"

#include <optional>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using Change = ChangeGate::Change;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

const BuildId kBuild = BuildId::Random();

TEST(ChangeGateTest, ClosedItLetsNothingInAndWaitsForWhatIsUnderWay) {
  ChangeGate gate(&Clock::Real());
  std::optional<ChangeGate::Pass> pause = gate.Enter(kBuild, Change::kPause);
  ASSERT_TRUE(pause.has_value());
  gate.Close();
  EXPECT_FALSE(gate.Enter(kBuild, Change::kNewMetadata).has_value());
  EXPECT_THAT(gate.UnderWay(), ElementsAre(Pair(kBuild, Change::kPause)));
  std::thread waits([&] { gate.WaitUntilEmpty(absl::InfiniteFuture()); });
  pause.reset();
  waits.join();
  EXPECT_THAT(gate.UnderWay(), IsEmpty());
}

TEST(ChangeGateTest, WaitsNoLongerThanToldAndKnowsWhatIsLeft) {
  test::SimulatedClock clock;
  clock.AdvanceOnWait();
  ChangeGate gate(&clock);
  const auto pause = gate.Enter(kBuild, Change::kPause);
  const auto metadata = gate.Enter(kBuild, Change::kNewMetadata);
  gate.Close();
  const absl::Time deadline = clock.Now() + absl::Seconds(3);
  gate.WaitUntilEmpty(deadline);
  EXPECT_EQ(clock.Now(), deadline);
  EXPECT_THAT(gate.UnderWay(),
              ElementsAre(Pair(kBuild, Change::kPause), Pair(kBuild, Change::kNewMetadata)));
}

}  // namespace
}  // namespace peerchunk
