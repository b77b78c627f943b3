#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include <absl/time/time.h>

#include "peerchunk/base/clock.h"
#include "storage/gcs_core/gcs_stub.h"

namespace peerchunk {

// The channels of a provider. Each call goes to the least busy one; a channel on which calls fail
// or stall is passed over for a while, longer each time, as long as another is left. Owned by the
// context; thread-safe, without locks.
class ChannelPool {
 public:
  ChannelPool(std::vector<std::unique_ptr<GcsStub>> stubs,
              Clock& clock);  // At least one; borrowed.

  // A channel taken for one call.
  class Lease {
   public:
    Lease(ChannelPool& pool, size_t index);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    GcsStub& stub();
    size_t index() const { return index_; }
    // What became of the call, as far as it tells something about the channel.
    void Worked();
    void Failed();

   private:
    ChannelPool& pool_;
    const size_t index_;
  };

  // The channel for the next call: not `avoid`, if there is another.
  size_t Pick(std::optional<size_t> avoid);

 private:
  struct Channel {
    std::unique_ptr<GcsStub> stub;
    std::atomic<int> calls{0};
    std::atomic<int> failures{0};           // In a row.
    std::atomic<int64_t> suspect_until{0};  // Nanoseconds since the epoch.
  };

  std::vector<std::unique_ptr<Channel>> channels_;  // Fixed after construction.
  std::atomic<size_t> turn_{0};
  Clock& clock_;
};

}  // namespace peerchunk
