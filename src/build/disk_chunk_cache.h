#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>

#include "build/block_bitmap.h"
#include "build/cached_pages.h"
#include "build/fetch_table.h"
#include "build/read_ahead.h"
#include "build/task_group.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/chunk_cache.h"

namespace peerchunk {

// What is counted of a chunk cache; nothing, without metrics.
struct ChunkCacheCounters {
  explicit ChunkCacheCounters(Metrics* metrics) {
    if (metrics == nullptr) return;
    fetches = &metrics->counter("peerchunk_chunk_fetches_total", {{"outcome", "ok"}});
    failures = &metrics->counter("peerchunk_chunk_fetches_total", {{"outcome", "error"}});
    uncached = &metrics->counter("peerchunk_chunk_fetches_total", {{"outcome", "uncached"}});
    passed_for_disk = &PassedThrough(*metrics, "disk_full");
    passed_for_source = &PassedThrough(*metrics, "one_source");
    passed_for_bad_disk = &PassedThrough(*metrics, "disk_error");
    spoilt_pages = &metrics->counter("peerchunk_spoilt_cache_pages_total");
    overtaken = &metrics->counter("peerchunk_overtaken_fetches_total");
    ahead_asked = &ReadAheadBytes(*metrics, "asked");
    ahead_used = &ReadAheadBytes(*metrics, "used");
    ahead_unused = &ReadAheadBytes(*metrics, "unused");
  }
  static Counter& ReadAheadBytes(Metrics& metrics, const char* outcome) {
    return metrics.counter("peerchunk_read_ahead_bytes_total", {{"outcome", outcome}});
  }
  static Counter& PassedThrough(Metrics& metrics, const char* reason) {
    return metrics.counter("peerchunk_passed_through_reads_total", {{"reason", reason}});
  }

  Counter unused;
  Counter* fetches = &unused;
  Counter* failures = &unused;
  Counter* uncached = &unused;
  Counter* passed_for_disk = &unused;
  Counter* passed_for_source = &unused;
  Counter* passed_for_bad_disk = &unused;
  Counter* spoilt_pages = &unused;
  Counter* overtaken = &unused;
  Counter* ahead_asked = &unused;
  Counter* ahead_used = &unused;
  Counter* ahead_unused = &unused;  // Known when the file is closed.
};

// The one chunk cache there is. Reads are in chunk_cache.cc; which fetch brings what, and how, is
// in chunk_fetches.cc.
class DiskChunkCache final : public ChunkCache {
 public:
  DiskChunkCache(BuildFileId id, File file, uint64_t size,
                 std::shared_ptr<StorageProvider> provider, std::shared_ptr<Seekable> upstream,
                 ChunkCacheOptions options)
      : id_(id),
        size_(size),
        options_(std::move(options)),
        provider_(std::move(provider)),
        upstream_(std::move(upstream)),
        counters_(options_.metrics),
        pages_(id, std::move(file), size, counters_.spoilt_pages),
        present_(pages_.present()),
        read_ahead_({.file_bytes = size,
                     .chunk_bytes = options_.chunk_bytes,
                     .max_window_bytes = options_.max_read_ahead_bytes}),
        relay_tasks_(options_.relay_executor != nullptr ? options_.relay_executor
                                                        : options_.executor),
        tasks_(options_.executor) {}
  ~DiskChunkCache() override {
    const ReadAhead::Totals totals = read_ahead_.totals();
    counters_.ahead_used->Add(totals.used);
    counters_.ahead_unused->Add(totals.asked - totals.used);
  }

  const BuildFileId& id() const override { return id_; }
  uint64_t size() const override { return size_; }
  std::optional<uint32_t> crc32c() const override { return std::nullopt; }
  uint64_t AllocatedBytes() const override { return pages_.AllocatedBytes(); }
  uint64_t CachedBytes() const override { return pages_.TotalBytes(); }

  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override;
  bool TryReadAt(uint64_t offset, absl::Span<char> out) override;
  absl::StatusOr<std::vector<Run>> ReadRuns(uint64_t offset, absl::Span<char> out,
                                            const ReadOptions& options) override;
  std::vector<Run> TryReadRuns(uint64_t offset, uint64_t length, absl::Span<char> out,
                               const ReadOptions& options) override;
  absl::Status Prefetch(ByteRange range, const ReadOptions& options) override;
  uint64_t PresentBytes(uint64_t offset, uint64_t limit) const override {
    return pages_.PresentBytes(offset, limit);
  }

 private:
  // What a reader does next about a block that was missing.
  enum class Next : uint8_t { kReadCache, kPassThrough };
  // What a new fetch is like.
  struct Purpose {
    Priority priority = Priority::kPrefetch;
    bool speculative = false;
    bool relayed = false;
    uint32_t relays_left = 1;
    // Leave out what a relayed fetch brings, too.
    bool besides_relayed = true;
  };

  BlockRange BlocksOf(ByteRange range) const {
    return {range.offset / kPageBytes, CeilDiv(range.end(), kPageBytes)};
  }
  BlockRange ChunkAround(uint64_t block) const {
    const uint64_t blocks = options_.chunk_bytes / kPageBytes;
    const uint64_t begin = block / blocks * blocks;
    return {begin, std::min(begin + blocks, present_.blocks())};
  }
  std::string Context(ByteRange range) const {
    return absl::StrCat("read ", id_.ObjectPath(), " [", range.offset, ", +", range.length, ")");
  }

  absl::StatusOr<size_t> PassThrough(ByteRange range, char* out, const ReadOptions& options);
  void ReadAheadOf(ByteRange read);
  // Waits until the block at range.offset is here, or says what to do instead. Has the chunks of
  // `range` fetched, as far as kChunksAtOnce. `patience` is when the read as a whole no longer
  // waits for prefetches; set when it first meets one.
  absl::StatusOr<Next> AwaitBlock(ByteRange range, const ReadOptions& options,
                                  absl::Time& patience);
  // Waits for the block at `wanted` as one of the fetch's readers, until `patience` at most. An
  // error: the reader's own end.
  absl::Status AwaitFetch(Fetch& fetch, BlockRange wanted, ByteRange range, absl::Time patience,
                          const ReadOptions& options);
  // A fetch of what of `wanted` is missing, beside those that bring it.
  std::shared_ptr<Fetch> Overtake(BlockRange wanted, const Purpose& purpose)
      PEERCHUNK_REQUIRES(mutex_);
  TaskGroup& TasksOf(const Fetch& fetch) { return fetch.relayed ? relay_tasks_ : tasks_; }
  FetchTable& TableOf(const Fetch& fetch) PEERCHUNK_REQUIRES(mutex_) {
    return fetch.overtaking ? overtaking_ : fetch.relayed ? relayed_fetches_ : fetches_;
  }
  void Queue(const std::shared_ptr<Fetch>& fetch) PEERCHUNK_REQUIRES(mutex_);

  bool DiskIsFull() const PEERCHUNK_REQUIRES(mutex_) {
    return !pages_.is_open() || options_.clock->Now() < disk_full_until_;
  }
  // The fetch that brings `block`, or null.
  std::shared_ptr<Fetch> Bringing(uint64_t block, const Purpose& purpose) const
      PEERCHUNK_REQUIRES(mutex_);
  // The run around `block`, which was missing, within `limits`, of what is missing and is not being
  // brought. Never empty, though `block` may have come by another fetch meanwhile.
  BlockRange MissingAround(uint64_t block, BlockRange limits, const Purpose& purpose) const
      PEERCHUNK_REQUIRES(mutex_);
  // Sees to it that all of `wanted`, which lies in one chunk, is brought.
  void Want(BlockRange wanted, const Purpose& purpose) PEERCHUNK_REQUIRES(mutex_);
  // Has `wanted` brought before the rest of what a fetch that waits its turn was to bring.
  void Hurry(const std::shared_ptr<Fetch>& fetch, BlockRange wanted, const Purpose& purpose)
      PEERCHUNK_REQUIRES(mutex_);
  void StartMissing(BlockRange blocks, uint64_t most_blocks, const Purpose& purpose)
      PEERCHUNK_REQUIRES(mutex_);
  void Start(BlockRange blocks, const Purpose& purpose) PEERCHUNK_REQUIRES(mutex_);
  std::shared_ptr<Fetch> Add(BlockRange blocks, const Purpose& purpose) PEERCHUNK_REQUIRES(mutex_);

  absl::Status RunFetch(const std::shared_ptr<Fetch>& fetch, const std::stop_token& cancellation);
  absl::Status Transfer(Fetch& fetch, Priority priority, const std::stop_token& cancellation,
                        bool& uncached);
  // `blocks` are here now.
  void WakeReadersOf(BlockRange blocks);

  const BuildFileId id_;
  const uint64_t size_;
  const ChunkCacheOptions options_;
  const std::shared_ptr<StorageProvider> provider_;  // Before upstream_, which must go first.
  const std::shared_ptr<Seekable> upstream_;
  ChunkCacheCounters counters_;

  CachedPages pages_;
  const BlockBitmap& present_;  // Of pages_.
  ReadAhead read_ahead_;

  Mutex mutex_;
  FetchTable fetches_ PEERCHUNK_GUARDED_BY(mutex_);          // For readers here.
  FetchTable relayed_fetches_ PEERCHUNK_GUARDED_BY(mutex_);  // For other nodes.
  // What is brought by one of the above, too.
  FetchTable overtaking_ PEERCHUNK_GUARDED_BY(mutex_);
  absl::Time disk_full_until_ PEERCHUNK_GUARDED_BY(mutex_) = absl::InfinitePast();

  // Last: their tasks use all of the above.
  TaskGroup relay_tasks_;
  TaskGroup tasks_;
};

}  // namespace peerchunk
