#pragma once

#include <array>
#include <cstdint>

#include <absl/time/time.h>

namespace peerchunk {

// What came during the latest `span` of waiting time, in slots of an eighth of it. Only time spent
// waiting counts: a reader that is slow itself is no stall. One thread.
class RecentRate {
 public:
  explicit RecentRate(absl::Duration span) : slot_(span / kSlots) {}

  void Wait(absl::Duration time) {
    waited_in_slot_ += time;
    while (waited_in_slot_ >= slot_) {
      waited_in_slot_ -= slot_;
      ++slots_passed_;
      bytes_[slots_passed_ % kSlots] = 0;
    }
  }
  void Add(uint64_t bytes) { bytes_[slots_passed_ % kSlots] += bytes; }

  // A whole span has been waited.
  bool Full() const { return slots_passed_ >= kSlots; }
  uint64_t Bytes() const {
    uint64_t sum = 0;
    for (const uint64_t bytes : bytes_) sum += bytes;
    return sum;
  }
  // More waiting time before Bytes() can fall.
  absl::Duration UntilNextSlot() const { return slot_ - waited_in_slot_; }

 private:
  static constexpr uint64_t kSlots = 8;

  const absl::Duration slot_;
  absl::Duration waited_in_slot_;
  uint64_t slots_passed_ = 0;
  std::array<uint64_t, kSlots> bytes_{};
};

}  // namespace peerchunk
