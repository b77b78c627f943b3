#include "service/send_pacer.h"

#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using testing::ElementsAre;

constexpr uint64_t kRate = 4 * kMiB;
constexpr Priority kDemand = Priority::kDemand;
constexpr Priority kPrefetch = Priority::kPrefetch;

class SendPacerTest : public testing::Test {
 protected:
  // Waits for a turn and notes whose it was.
  SendPacer::Ticket Wait(const std::string& peer, Priority lane, uint64_t bytes) {
    return pacer_->Wait(peer, lane, bytes, [this, peer] {
      const MutexLock lock(mutex_);
      turns_.push_back(peer);
      changed_.NotifyAll();
    });
  }
  std::vector<std::string> Turns() {
    const MutexLock lock(mutex_);
    return turns_;
  }
  // What the alarms' thread has done once the clock is there. It waits for the next alarm, if there
  // is one, when all of these have run.
  std::vector<std::string> TurnsAfter(absl::Duration by, size_t count) {
    clock_.Advance(by);
    MutexLock lock(mutex_);
    while (turns_.size() < count) changed_.Wait(mutex_);
    return turns_;
  }

  test::SimulatedClock clock_;
  Counter throttled_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> turns_ PEERCHUNK_GUARDED_BY(mutex_);
  // The alarms go first, as in the service.
  std::optional<Alarms> alarms_;
  std::optional<SendPacer> pacer_;

  SendPacerTest() {
    alarms_.emplace(&clock_);
    pacer_.emplace(kRate, &clock_, &*alarms_, throttled_);
  }
  ~SendPacerTest() override { alarms_.reset(); }
};

TEST_F(SendPacerTest, WithoutALimitNobodyWaits) {
  SendPacer unlimited(0, &clock_, nullptr, throttled_);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(unlimited.TrySpend(kPrefetch, kMiB));
  unlimited.Spend(kDemand, kMiB);
  unlimited.GiveBack(kDemand, kMiB);
  EXPECT_TRUE(unlimited.TrySpend(kDemand, kMiB));
}

TEST_F(SendPacerTest, ATurnComesWhenTheLastOneIsPaid) {
  EXPECT_TRUE(pacer_->TrySpend(kPrefetch, kMiB));
  EXPECT_FALSE(pacer_->TrySpend(kPrefetch, 1));
  Wait("a", kPrefetch, kMiB);
  Wait("a", kPrefetch, kMiB);
  EXPECT_THAT(Turns(), ElementsAre());
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Milliseconds(249));
  EXPECT_THAT(Turns(), ElementsAre());
  EXPECT_THAT(TurnsAfter(absl::Milliseconds(1), 1), ElementsAre("a"));
  EXPECT_EQ(pacer_->waiting(), 1u);
  EXPECT_THAT(TurnsAfter(absl::Milliseconds(250), 2), ElementsAre("a", "a"));
  EXPECT_EQ(throttled_.value(), 750'000u);
}

TEST_F(SendPacerTest, PeersTakeTurnsWhateverTheyAskFor) {
  EXPECT_TRUE(pacer_->TrySpend(kPrefetch, kMiB));
  for (int i = 0; i < 3; ++i) Wait("a", kPrefetch, kMiB);
  Wait("b", kPrefetch, kMiB);
  Wait("c", kPrefetch, kMiB);
  for (size_t turn = 1; turn <= 5; ++turn) TurnsAfter(absl::Milliseconds(250), turn);
  EXPECT_THAT(Turns(), ElementsAre("a", "b", "c", "a", "a"));
}

TEST_F(SendPacerTest, DemandPaysForDemandOnlyAndPrefetchForAll) {
  EXPECT_TRUE(pacer_->TrySpend(kPrefetch, kMiB));
  Wait("bulk", kPrefetch, kMiB);
  // However much prefetch owes, and waits.
  EXPECT_TRUE(pacer_->TrySpend(kDemand, kMiB));
  EXPECT_FALSE(pacer_->TrySpend(kDemand, kMiB)) << "half a message may be unpaid, not a whole one";
  Wait("fault", kDemand, kMiB);
  EXPECT_THAT(TurnsAfter(absl::Milliseconds(125), 1), ElementsAre("fault"));
  // 3 MiB have gone, and are paid for after 750 ms.
  clock_.Advance(absl::Milliseconds(624));
  EXPECT_EQ(Turns().size(), 1u);
  EXPECT_THAT(TurnsAfter(absl::Milliseconds(1), 2), ElementsAre("fault", "bulk"));
}

TEST_F(SendPacerTest, WhatWasSentWithoutATurnIsWaitedForToo) {
  pacer_->Spend(kDemand, SendPacer::kDemandBurstBytes);
  EXPECT_TRUE(pacer_->TrySpend(kDemand, 0)) << "so much may be unpaid";
  pacer_->Spend(kDemand, 4096);
  EXPECT_FALSE(pacer_->TrySpend(kDemand, 0));
  EXPECT_FALSE(pacer_->TrySpend(kPrefetch, 1));
  Wait("a", kDemand, 0);
  EXPECT_THAT(TurnsAfter(absl::Milliseconds(1), 1), ElementsAre("a"));
}

TEST_F(SendPacerTest, BytesGivenBackBringTheNextTurnAtOnce) {
  EXPECT_TRUE(pacer_->TrySpend(kPrefetch, kMiB));
  Wait("a", kPrefetch, kMiB);
  pacer_->GiveBack(kPrefetch, kMiB / 2);
  EXPECT_THAT(Turns(), ElementsAre());
  pacer_->GiveBack(kPrefetch, kMiB / 2);
  EXPECT_THAT(Turns(), ElementsAre("a"));
}

TEST_F(SendPacerTest, WhoIsForgottenCostsNothing) {
  EXPECT_TRUE(pacer_->TrySpend(kPrefetch, kMiB));
  const SendPacer::Ticket gone = Wait("a", kPrefetch, kMiB);
  Wait("b", kPrefetch, kMiB);
  EXPECT_TRUE(pacer_->Forget("a", kPrefetch, gone));
  EXPECT_FALSE(pacer_->Forget("a", kPrefetch, gone));
  EXPECT_FALSE(pacer_->Forget("nobody", kPrefetch, gone));
  EXPECT_THAT(TurnsAfter(absl::Milliseconds(250), 1), ElementsAre("b"));
  EXPECT_EQ(pacer_->waiting(), 0u);
}

// Any mix over any time: what the class says.
TEST_F(SendPacerTest, WhatGoesOutStaysWithinTheRate) {
  const absl::Time start = clock_.Now();
  uint64_t sent = 0;
  for (int i = 0; i < 1000; ++i) {
    for (const Priority lane : {kPrefetch, kDemand}) {
      const uint64_t bytes = lane == kDemand ? kMiB / 16 : kMiB;
      while (pacer_->TrySpend(lane, bytes)) sent += bytes;
    }
    const double most = absl::ToDoubleSeconds(clock_.Now() - start) * kRate +
                        SendPacer::kDemandBurstBytes + 2 * kMiB;
    ASSERT_LE(static_cast<double>(sent), most) << i;
    clock_.Advance(absl::Milliseconds(10));
  }
  EXPECT_GE(sent, 10 * kRate * 99 / 100);
}

}  // namespace
}  // namespace peerchunk
