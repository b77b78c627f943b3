#include "base/short_turns.h"

#include <sys/resource.h>

#include <future>
#include <thread>

#include <gtest/gtest.h>

#include "peerchunk/base/executor.h"
#include "tests/support/thread_turns.h"

namespace peerchunk {
namespace {

using test::ThreadTurns;
using test::TurnsOf;

constexpr uint64_t kShortNs = 100'000;

ThreadTurns TurnsIn(ThreadPool& pool) {
  std::promise<ThreadTurns> turns;
  pool.Run(Priority::kDemand, [&] { turns.set_value(TurnsOf(0)); });
  return turns.get_future().get();
}

TEST(ShortTurnsTest, OnlyTheLengthOfATurnIsOther) {
  const ThreadTurns before = TurnsOf(0);
  ThreadTurns after;
  std::thread([&] {
    setpriority(PRIO_PROCESS, 0, 3);  // Of this thread, on Linux.
    PreferShortTurns();
    after = TurnsOf(0);
  }).join();
  EXPECT_EQ(after.nice, 3);
  EXPECT_EQ(after.policy, before.policy);
  EXPECT_EQ(after.flags, before.flags);
  EXPECT_EQ(TurnsOf(0).runtime_ns, before.runtime_ns) << "of the thread that asked, alone";
  if (!test::TurnsCanDiffer()) GTEST_SKIP() << "this kernel gives all threads the same turns";
  EXPECT_EQ(after.runtime_ns, kShortNs);
}

TEST(ShortTurnsTest, APoolHasThemThatAsksForThem) {
  ThreadPool usual("usual", 1);
  ThreadPool brief("short", 1, ThreadPool::Turns::kShort);
  EXPECT_EQ(TurnsIn(usual).runtime_ns, TurnsOf(0).runtime_ns);
  if (!test::TurnsCanDiffer()) GTEST_SKIP() << "this kernel gives all threads the same turns";
  EXPECT_EQ(TurnsIn(brief).runtime_ns, kShortNs);
}

}  // namespace
}  // namespace peerchunk
