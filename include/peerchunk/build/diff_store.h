#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/build/build_file.h"

namespace peerchunk {

class TaskGroup;

// The diffs open on this node, by (build, file). Hands out owning pins; what is pinned, or marked
// as the only copy, is never evicted. Evicts by bytes, oldest use first, by dropping the store's
// own reference: a reader never waits for it. Thread-safe.
class DiffStore {
 public:
  using Opener = std::function<absl::StatusOr<std::shared_ptr<BuildFile>>()>;

  struct Options {
    uint64_t capacity_bytes = UINT64_MAX;  // Of disk, over all evictable files. High water.
    double low_water = 0.9;                // Eviction goes on down to this share.
    // Told of a file that was evicted, after the last lock is released; removes it from the disk.
    std::function<void(const BuildFileId&)> on_evict;
    // Opens files and drops evicted ones, so that no reader's thread does; borrowed, outlives the
    // store. Null: the thread that asked first opens, and the one that trims drops.
    Executor* executor = nullptr;
    Clock* clock = &Clock::Real();  // Of ReadOptions::deadline.
  };

  explicit DiffStore(Options options);
  ~DiffStore();  // Closes.

  // Waits for openers that run; callers who wait for them, and later ones whose file is not here,
  // get Unavailable. For owners whose readers may outlive what openers use.
  void Close();

  // A pin, or null.
  std::shared_ptr<BuildFile> Lookup(const BuildFileId& id);

  // A pin; when the file is not here, `open` makes it. Callers who come meanwhile wait for the same
  // attempt; its failure wakes them all with the same error and is not remembered. An attempt
  // belongs to no caller: `open` brings its own limits, and a caller whose `options` end leaves it
  // running.
  absl::StatusOr<std::shared_ptr<BuildFile>> GetOrOpen(const BuildFileId& id, const Opener& open,
                                                       const ReadOptions& options);

  // Begins such an attempt, unless the file is here or one is under way, and does not wait for it.
  void StartOpen(const BuildFileId& id, const Opener& open, Priority priority);

  // Puts a file in, in place of one that may be there. `only_copy`: not durable, so never evicted.
  // `beside_bytes`: disk space of other files that go when it goes. What was put in of one build
  // leaves the disk together: while one of its files may not go, none does.
  void Insert(const BuildFileId& id, std::shared_ptr<BuildFile> file, bool only_copy,
              uint64_t beside_bytes = 0);
  // The same for the files of a build that are here: whether they may go has changed.
  void SetOnlyCopy(const BuildId& build, bool only_copy);
  // Forgets a file; readers keep their pins.
  void Remove(const BuildFileId& id);

  // Evicts until the budget holds or nothing more can go. Called by whoever adds bytes.
  void Trim() { MakeRoom(0); }
  // As Trim, for `bytes` more than there are; false when they will not fit. Files are asked what
  // they hold only when what was granted since they were last asked would not fit with it.
  bool MakeRoom(uint64_t bytes);

  // True when `bytes` more than there are fit without anything having to go. As MakeRoom, it takes
  // them for given from then on.
  bool HasRoom(uint64_t bytes);

  // True when someone holds a pin of a file of this build that is here.
  bool InUse(const BuildId& build) const;
  uint64_t AllocatedBytes() const;
  // True when what may not be evicted alone exceeds the budget: refuse new work.
  bool Full() const;

 private:
  struct Opening;
  struct Entry {
    std::shared_ptr<BuildFile> file;
    std::shared_ptr<Opening> opening;  // While the opener runs; file is null then.
    uint64_t last_use = 0;
    bool inserted = false;
    bool only_copy = false;
    uint64_t beside_bytes = 0;

    uint64_t held_bytes() const {
      return file == nullptr ? 0 : file->AllocatedBytes() + beside_bytes;
    }
    bool in_use() const { return file != nullptr && file.use_count() > 1; }
    bool may_go() const { return file != nullptr && !only_copy && !in_use(); }
    bool evictable(const BuildId& build, const absl::flat_hash_set<BuildId>& kept) const {
      return may_go() && !(inserted && kept.contains(build));
    }
  };

  // Either the file, or the attempt to wait for.
  struct FileOrOpening {
    std::shared_ptr<BuildFile> file;
    std::shared_ptr<Opening> opening;
  };
  FileOrOpening FindOrStart(const BuildFileId& id, const Opener& open, Priority priority);
  void RunOpening(const BuildFileId& id, const std::shared_ptr<Opening>& opening,
                  const Opener& open);
  absl::StatusOr<std::shared_ptr<BuildFile>> Await(const BuildFileId& id, Opening& opening,
                                                   const ReadOptions& options);
  // Builds of which a file that was put in may not go.
  absl::flat_hash_set<BuildId> KeptBuildsLocked() const PEERCHUNK_REQUIRES(mutex_);
  uint64_t AllocatedLocked() const PEERCHUNK_REQUIRES(mutex_);
  // True when `bytes` more fit for sure, which are counted from then on.
  bool GrantLocked(uint64_t bytes) PEERCHUNK_REQUIRES(mutex_);

  const Options options_;
  mutable Mutex mutex_;
  bool closed_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  uint64_t use_clock_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  // What the files held when they were last asked, and what was granted since: never less than they
  // hold now, if whoever adds bytes asks first.
  uint64_t most_held_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<BuildFileId, Entry> entries_ PEERCHUNK_GUARDED_BY(mutex_);
  std::unique_ptr<TaskGroup> tasks_;  // Null without an executor. Last: its tasks use the above.
};

}  // namespace peerchunk
