#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "peerchunk/base/mutex.h"
#include "peerchunk/build/build_file.h"

namespace peerchunk {

// The diffs open on this node, by (build, file). Hands out owning pins; what is pinned, or marked as
// the only copy, is never evicted. Evicts by bytes, oldest use first, by dropping the store's own
// reference: a reader never waits for it. Thread-safe.
class DiffStore {
 public:
  using Opener = std::function<absl::StatusOr<std::shared_ptr<BuildFile>>()>;

  struct Options {
    uint64_t capacity_bytes = UINT64_MAX;  // Of disk, over all evictable files. High water.
    double low_water = 0.9;                // Eviction goes on down to this share.
    // Told of a file that was evicted, after the last lock is released; removes it from the disk.
    std::function<void(const BuildFileId&)> on_evict;
  };

  explicit DiffStore(Options options) : options_(std::move(options)) {}

  // A pin, or null.
  std::shared_ptr<BuildFile> Lookup(const BuildFileId& id);

  // A pin; when the file is not here, `open` makes it. Callers who come meanwhile wait for the same
  // attempt; its failure wakes them all with the same error and is not remembered.
  absl::StatusOr<std::shared_ptr<BuildFile>> GetOrOpen(const BuildFileId& id, const Opener& open,
                                                       const ReadOptions& options);

  // Puts a file in, in place of one that may be there. `only_copy`: not durable, so never evicted.
  void Insert(const BuildFileId& id, std::shared_ptr<BuildFile> file, bool only_copy);
  // The build has become durable: its files may go.
  void Release(const BuildId& build);
  // Forgets a file; readers keep their pins.
  void Remove(const BuildFileId& id);

  // Evicts until the budget holds or nothing more can go. Called by whoever adds bytes.
  void Trim();

  uint64_t AllocatedBytes() const;
  // True when what may not be evicted alone exceeds the budget: refuse new work.
  bool Full() const;

 private:
  struct Opening;
  struct Entry {
    std::shared_ptr<BuildFile> file;
    std::shared_ptr<Opening> opening;  // While the first GetOrOpen runs; file is null then.
    uint64_t last_use = 0;
    bool only_copy = false;
  };

  const Options options_;
  mutable Mutex mutex_;
  CondVar opened_;
  uint64_t use_clock_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<BuildFileId, Entry> entries_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
