#include "tests/support/thread_turns.h"

#include <sched.h>

#include <gtest/gtest.h>

#include "tests/support/daemon_process.h"

namespace peerchunk {
namespace {

// The node runs guests, whose turns last milliseconds: who waits for a page waits for them, too.
TEST(ThreadTurnsTest, ThreadsThatServePagesHaveShortOnesAndNoOthers) {
  if (!test::TurnsCanDiffer()) GTEST_SKIP() << "this kernel gives all threads the same turns";
  const uint64_t usual = test::TurnsOf(0).runtime_ns;
  const test::TempDir folder;
  test::DaemonProcess daemon(folder.PathOf("data"), folder.PathOf("base"));
  const auto turns = [&] {
    return test::TurnsByThreadName(std::to_string(daemon.process().pid()));
  };
  const auto all_begun = [&] {
    auto of = turns();
    return of["pc-queue"] == 100'000 && of["pc-fetch"] == 100'000 && of["pc-read"] == 100'000;
  };
  while (!all_begun()) sched_yield();  // A thread asks when it has the core for the first time.
  auto of = turns();
  EXPECT_EQ(of["pc-prefetch"], usual);
  EXPECT_EQ(of["peerchunkd"], usual);
  EXPECT_EQ(daemon.Stop(), 0);
}

}  // namespace
}  // namespace peerchunk
