#include "service/event_loop.h"

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace peerchunk {
namespace {

using testing::ElementsAre;
using Log = std::vector<std::string>;

class NamedOperation final : public CallOperation {
 public:
  NamedOperation(std::string name, bool waits, Log& log)
      : name_(std::move(name)), waits_(waits), log_(log) {}
  void Run(bool ok) override { log_.push_back(ok ? name_ : name_ + " failed"); }
  bool waits_for_others() const override { return waits_; }

 private:
  const std::string name_;
  const bool waits_;
  Log& log_;
};

// Has what a test has put there, and then is shut down.
class ScriptedQueue final : public EventQueue {
 public:
  void Page(const std::string& name, bool ok = true) { Add(name, false, ok); }
  void Bulk(const std::string& name, bool ok = true) { Add(name, true, ok); }
  // To one look; nothing is there.
  void Nothing() { script_.push_back({}); }

  Event Look() override {
    if (script_.empty()) return {.status = Status::kShutDown, .operation = nullptr};
    Event event = std::move(script_.front());
    script_.pop_front();
    log.push_back("look");
    return event;
  }
  Event Wait() override {
    while (!script_.empty() && script_.front().status == Status::kNothing) script_.pop_front();
    return Look();
  }

  Log ran() const {
    Log names;
    for (const std::string& line : log) {
      if (line != "look") names.push_back(line);
    }
    return names;
  }

  Log log;

 private:
  void Add(const std::string& name, bool waits, bool ok) {
    script_.push_back({.status = Status::kEvent,
                       .operation = std::make_unique<NamedOperation>(name, waits, log),
                       .ok = ok});
  }

  std::deque<Event> script_;
};

TEST(EventLoopTest, EachEventIsRunOnceAndToldWhetherItWorked) {
  ScriptedQueue queue;
  queue.Page("a");
  queue.Page("b", false);
  queue.Bulk("c", false);
  EventLoop(queue).Run();
  EXPECT_THAT(queue.ran(), ElementsAre("a", "b failed", "c failed"));
}

TEST(EventLoopTest, ConnectionsAreLookedAtBeforeEachBulkMessage) {
  ScriptedQueue queue;
  queue.Bulk("bulk 1");
  queue.Nothing();
  queue.Bulk("bulk 2");
  queue.Nothing();
  EventLoop(queue).Run();
  EXPECT_THAT(queue.log, ElementsAre("look", "look", "bulk 1", "look", "look", "bulk 2"));
}

TEST(EventLoopTest, WhatSomebodyWaitsForGoesBeforeBulk) {
  ScriptedQueue queue;
  queue.Bulk("bulk 1");
  queue.Bulk("bulk 2");
  queue.Page("page 1");
  queue.Page("page 2");
  queue.Nothing();
  queue.Page("page 3");
  queue.Nothing();
  EventLoop(queue).Run();
  EXPECT_THAT(queue.ran(), ElementsAre("page 1", "page 2", "bulk 1", "page 3", "bulk 2"));
}

TEST(EventLoopTest, BulkGoesOnHoweverManyPagesAreAskedFor) {
  ScriptedQueue queue;
  queue.Bulk("bulk");
  for (int i = 0; i < 40; ++i) queue.Page("page");
  EventLoop(queue).Run();
  const Log ran = queue.ran();
  ASSERT_EQ(ran.size(), 41u);
  EXPECT_EQ(ran[16], "bulk");
}

TEST(EventLoopTest, NothingIsLeftWhenTheQueueIsShutDown) {
  ScriptedQueue queue;
  queue.Bulk("bulk 1");
  queue.Bulk("bulk 2");
  EventLoop(queue).Run();
  EXPECT_THAT(queue.ran(), ElementsAre("bulk 1", "bulk 2"));
}

}  // namespace
}  // namespace peerchunk
