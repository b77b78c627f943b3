#include "service/event_loop.h"

namespace peerchunk {

void EventLoop::Run() {
  while (true) {
    EventQueue::Event event = later_.empty() ? Next() : queue_.Look();
    if (event.status == EventQueue::Status::kShutDown) break;
    if (event.status == EventQueue::Status::kNothing) {
      RunFirstLater();
    } else if (event.operation->waits_for_others()) {
      later_.push_back(std::move(event));
    } else {
      event.operation->Run(event.ok);
      if (!later_.empty() && ++before_ >= kMostBefore) RunFirstLater();
    }
  }
  while (!later_.empty()) RunFirstLater();
}

void EventLoop::RunFirstLater() {
  const EventQueue::Event event = std::move(later_.front());
  later_.pop_front();
  before_ = 0;
  event.operation->Run(event.ok);
}

EventQueue::Event EventLoop::Next() {
  // What is waited for here comes in real time.
  AdaptivePolling::Wait wait(polling_, Clock::Real());
  EventQueue::Event event;
  while (event.status == EventQueue::Status::kNothing && wait.LooksAgain()) event = queue_.Look();
  if (event.status == EventQueue::Status::kNothing) event = queue_.Wait();
  return event;
}

}  // namespace peerchunk
