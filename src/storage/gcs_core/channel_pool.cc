#include "storage/gcs_core/channel_pool.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

namespace peerchunk {
namespace {

constexpr absl::Duration kFirstSuspicion = absl::Seconds(5);
constexpr int kMostDoublings = 6;  // 320 s.

}  // namespace

ChannelPool::ChannelPool(std::vector<std::unique_ptr<GcsStub>> stubs, Clock& clock)
    : clock_(clock) {
  for (auto& stub : stubs) {
    channels_.push_back(std::make_unique<Channel>());
    channels_.back()->stub = std::move(stub);
  }
}

size_t ChannelPool::Pick(std::optional<size_t> avoid) {
  const int64_t now = absl::ToUnixNanos(clock_.Now());
  const size_t start = turn_.fetch_add(1, std::memory_order_relaxed);
  // In this order: another channel than the one to avoid, one without suspicion, the one whose
  // suspicion ends first, the least busy one; then in turn.
  using Rank = std::tuple<bool, int64_t, int>;
  Rank best_rank{true, std::numeric_limits<int64_t>::max(), std::numeric_limits<int>::max()};
  size_t best = start % channels_.size();
  for (size_t i = 0; i < channels_.size(); ++i) {
    const size_t index = (start + i) % channels_.size();
    const Channel& channel = *channels_[index];
    const int64_t suspect = channel.suspect_until.load(std::memory_order_relaxed);
    const Rank rank{avoid == index, suspect > now ? suspect : 0,
                    channel.calls.load(std::memory_order_relaxed)};
    if (rank < best_rank) {
      best_rank = rank;
      best = index;
    }
  }
  return best;
}

ChannelPool::Lease::Lease(ChannelPool& pool, size_t index) : pool_(pool), index_(index) {
  pool_.channels_[index_]->calls.fetch_add(1, std::memory_order_relaxed);
}

ChannelPool::Lease::~Lease() {
  pool_.channels_[index_]->calls.fetch_sub(1, std::memory_order_relaxed);
}

GcsStub& ChannelPool::Lease::stub() { return *pool_.channels_[index_]->stub; }

void ChannelPool::Lease::Worked() {
  Channel& channel = *pool_.channels_[index_];
  channel.failures.store(0, std::memory_order_relaxed);
  channel.suspect_until.store(0, std::memory_order_relaxed);
}

void ChannelPool::Lease::Failed() {
  Channel& channel = *pool_.channels_[index_];
  const int failures = channel.failures.fetch_add(1, std::memory_order_relaxed);
  const absl::Time until =
      pool_.clock_.Now() + kFirstSuspicion * (1 << std::min(failures, kMostDoublings));
  channel.suspect_until.store(absl::ToUnixNanos(until), std::memory_order_relaxed);
}

}  // namespace peerchunk
