#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/build_file.h"

namespace peerchunk {

struct ChunkCacheOptions {
  // The grid of fetches, the same for every source of the file. A multiple of the page size.
  uint64_t chunk_bytes = 256 * kKiB;
  // A fetch belongs to no caller: its own limit, after which waiters get an error and may try
  // again.
  absl::Duration fetch_timeout = absl::Seconds(60);
  Executor* executor = nullptr;  // Runs fetches; borrowed, outlives the cache.
  // Runs those for other nodes, so that readers here do not queue behind them; as above. Null:
  // `executor` does.
  Executor* relay_executor = nullptr;
  Clock* clock = &Clock::Real();
  Metrics* metrics = nullptr;  // Borrowed; null: nothing is counted.
  // Asked before each fetch, on the executor: is there room on the disk for so many bytes more?
  // False: the read is passed through. Empty: always.
  std::function<bool(uint64_t bytes)> admit;
  // The same for bytes that nobody has asked for, which nothing else should have to leave for.
  std::function<bool(uint64_t bytes)> admit_ahead;
  // A demand read that waits this long for a fetch of lower priority, which has begun, fetches its
  // own bytes beside it.
  absl::Duration overtake_delay = absl::Milliseconds(50);
  // How far one sequence of demand reads is read ahead of, at most; less than a chunk: not at all.
  uint64_t max_read_ahead_bytes = 8 * kMiB;
};

// A diff filled on demand: a sparse local file, and for each 4 KiB block a presence bit, set only
// after the block was checked and written, and its CRC32C, against which every read of it is
// checked: a block that was spoilt on the disk is missing from then on and is fetched again. No
// byte is fetched twice however many readers wait: a demand read fetches its own bytes by
// themselves and the rest of their chunk at prefetch priority; who asks for bytes on their way
// waits for those, which are fetched at the highest priority among their readers. But a demand read
// that has waited a while for bytes that are fetched ahead of anyone fetches its own as well, and
// the first that come count. Sequences of demand reads are read ahead of. What cannot be cached for
// lack of disk is passed through, so a guest's read never fails for that. A failed fetch is not
// remembered. What is present is read without a lock. Owned by shared_ptr pins; thread-safe. The
// destructor cancels and joins its fetches, so the last pin is not dropped by a fetch.
//
// Reads with ReadOptions::relays_left 0 get what is present and Unavailable for the rest: they
// start no fetch and join none. Relayed reads share fetches among themselves only, and those carry
// relays_left 0, so what they wait for ends at a node that waits for nobody. They bring what was
// asked for and no more, on an executor of their own, and end when nobody waits for them any
// longer. Local readers join either kind; where a relayed fetch fails, they start their own. Reads
// that name one source (ReadOptions::sources) are passed through unless all of their bytes are
// present.
class ChunkCache : public BuildFile {
 public:
  // `file` is empty and belongs to the cache from now on; one that is not open: nothing is cached
  // and every read is passed through. `size` is the diff's size in bytes. `provider`, which made
  // `upstream`, is kept alive as long as it; null where that keeps what it needs itself.
  static absl::StatusOr<std::shared_ptr<ChunkCache>> Open(BuildFileId id, File file, uint64_t size,
                                                          std::shared_ptr<StorageProvider> provider,
                                                          std::shared_ptr<Seekable> upstream,
                                                          ChunkCacheOptions options);

  // Bytes present, in whole blocks.
  virtual uint64_t CachedBytes() const = 0;
};

}  // namespace peerchunk
