#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <stop_token>

#include <absl/status/status.h>

#include "build/block_bitmap.h"
#include "build/task_group.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk {

// One transfer of a run of blocks, queued or under way. Guarded by the mutex of the cache that it
// belongs to.
struct Fetch {
  BlockRange blocks;  // May be cut while the fetch is queued, never once it has begun.
  bool relayed = false;
  uint32_t relays_left = 0;
  Priority priority = Priority::kPrefetch;
  bool speculative = false;  // Nobody has asked for these bytes yet.
  TaskGroup::TaskId task = 0;
  bool overtaking = false;  // Brings what another brings, too, for readers who waited too long.
  size_t waiters = 0;       // Readers in AwaitBlock.
  std::stop_source stop;    // Ends it; requested without the mutex.
  bool abandoned = false;   // Ended because nobody waits for it: tells who comes now nothing.
  bool begun = false;
  bool done = false;
  bool uncached = false;  // When done: there is no room for them on the disk.
  absl::Status status;
  CondVar changed;  // Blocks came, or it was cut, or done.
};

// The fetches of one kind that are queued or under way, by what they bring: no two overlap.
// Guarded by its owner's mutex.
class FetchTable {
 public:
  // The one that brings `block`, or null.
  std::shared_ptr<Fetch> Find(uint64_t block) const {
    const auto after = fetches_.upper_bound(block);
    if (after == fetches_.begin()) return nullptr;
    const std::shared_ptr<Fetch>& before = std::prev(after)->second;
    return before->blocks.Contains(block) ? before : nullptr;
  }

  // The run around `block`, which no fetch brings, within `limits`, that none brings.
  BlockRange FreeAround(uint64_t block, BlockRange limits) const {
    const auto after = fetches_.upper_bound(block);
    if (after != fetches_.end()) limits.end = std::min(limits.end, after->first);
    if (after != fetches_.begin()) {
      limits.begin = std::max(limits.begin, std::prev(after)->second->blocks.end);
    }
    return limits;
  }

  // Tells the readers of whatever brings a part of `blocks`.
  void NotifyOf(BlockRange blocks) const {
    auto at = fetches_.upper_bound(blocks.begin);
    if (at != fetches_.begin()) --at;
    for (; at != fetches_.end() && at->first < blocks.end; ++at) at->second->changed.NotifyAll();
  }

  void Add(std::shared_ptr<Fetch> fetch) {
    const uint64_t begin = fetch->blocks.begin;
    fetches_.emplace(begin, std::move(fetch));
  }
  void Remove(const Fetch& fetch) { fetches_.erase(fetch.blocks.begin); }

 private:
  std::map<uint64_t, std::shared_ptr<Fetch>> fetches_;  // By the first block.
};

}  // namespace peerchunk
