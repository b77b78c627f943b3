#include "mount/request_lanes.h"

#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "peerchunk/base/mutex.h"

namespace peerchunk {
namespace {

// A point that one thread waits at until another opens it.
class Gate {
 public:
  void Open() {
    const MutexLock lock(mutex_);
    open_ = true;
    opened_.NotifyAll();
  }
  void Pass() {
    const MutexLock lock(mutex_);
    while (!open_) opened_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar opened_;
  bool open_ PEERCHUNK_GUARDED_BY(mutex_) = false;
};

TEST(RequestLanesTest, BelowTheLimitRunsInsideTheCall) {
  RequestLanes lanes(1);
  std::thread::id ran;
  lanes.Run([&] { ran = std::this_thread::get_id(); });
  EXPECT_EQ(ran, std::this_thread::get_id());
}

TEST(RequestLanesTest, AtTheLimitReturnsAtOnceAndTheBusyThreadRunsItInOrder) {
  RequestLanes lanes(1);
  Gate started, release;
  std::string order;
  std::thread busy([&] {
    lanes.Run([&] {
      started.Open();
      release.Pass();
    });
  });
  started.Pass();
  const auto note = [&, busy_id = busy.get_id()](char name) {
    EXPECT_EQ(std::this_thread::get_id(), busy_id);
    order += name;
  };
  lanes.Run([&] { note('a'); });
  lanes.Run([&] { note('b'); });
  EXPECT_EQ(order, "");
  release.Open();
  busy.join();
  EXPECT_EQ(order, "ab");
}

TEST(RequestLanesTest, AFreedLaneIsUsedAgain) {
  RequestLanes lanes(1);
  int ran = 0;
  for (int i = 0; i < 3; ++i) lanes.Run([&] { ++ran; });
  EXPECT_EQ(ran, 3);
}

}  // namespace
}  // namespace peerchunk
