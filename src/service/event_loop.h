#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <utility>

#include "base/adaptive_polling.h"
#include "peerchunk/base/clock.h"

namespace peerchunk {

// One operation under way on a completion queue. It keeps its call alive; the queue's thread runs
// it once and deletes it.
class CallOperation {
 public:
  virtual ~CallOperation() = default;
  virtual void Run(bool ok) = 0;
  // Of a transfer that nobody waits for: what somebody waits for goes first.
  virtual bool waits_for_others() const { return false; }
};

// A completion queue, as the loop sees it.
class EventQueue {
 public:
  enum class Status { kEvent, kNothing, kShutDown };
  struct Event {
    Status status = Status::kNothing;
    std::unique_ptr<CallOperation> operation;
    bool ok = false;
  };

  virtual ~EventQueue() = default;
  // What has happened by now, on any of the queue's connections.
  virtual Event Look() = 0;
  // Sleeps until something does; never kNothing.
  virtual Event Wait() = 0;
};

// Runs what happens on a queue, until that is shut down.
//
// A bulk transfer's next message is ready when one is written, for as long as its reader keeps up,
// and gRPC looks at no connection while the queue has an event: a page's reader on the same thread
// would wait for megabytes. So one bulk message is written, then all connections are looked at.
//
// A reader that waits for its pages asks again as soon as it has some, so the loop looks a while
// longer before it sleeps: waking up would be half of a read's time.
class EventLoop {
 public:
  explicit EventLoop(EventQueue& queue) : queue_(queue) {}

  void Run();

 private:
  // Bulk goes on, however many ask for pages.
  static constexpr size_t kMostBefore = 16;

  EventQueue::Event Next();
  void RunFirstLater();

  EventQueue& queue_;
  AdaptivePolling polling_;
  std::deque<EventQueue::Event> later_;
  size_t before_ = 0;  // Events that went before those.
};

}  // namespace peerchunk
