#include "peerchunk/build/chunk_cache.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/logging.h"
#include "build/block_bitmap.h"
#include "build/cached_pages.h"
#include "build/fetch_table.h"
#include "build/read_ahead.h"
#include "build/task_group.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// A bit per page and a pointer per MiB are held in memory for a size that a peer declared: 320 MiB
// of them at most.
constexpr uint64_t kMaxFileBytes = 8192 * kGiB;
// How many chunks one read has fetched side by side.
constexpr uint64_t kChunksAtOnce = 8;
// What is left of a chunk beside a reader's own bytes and not more than this comes with them.
constexpr uint64_t kSmallRestBlocks = 8;
// One request for bytes read ahead is a part of all that is ahead, and not more than a message.
constexpr uint64_t kMaxAheadRequestBytes = kMiB;
// After the disk was found full, reads are passed through this long before the next try.
constexpr absl::Duration kDiskFullPause = absl::Seconds(1);

// What a reader does next about a block that was missing.
enum class Next { kReadCache, kPassThrough };

struct Counters {
  explicit Counters(Metrics* metrics) {
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

// `own`, and with it what is left of `all` on either side if that is little.
BlockRange WithSmallRest(BlockRange own, BlockRange all) {
  if (own.begin - all.begin <= kSmallRestBlocks) own.begin = all.begin;
  if (all.end - own.end <= kSmallRestBlocks) own.end = all.end;
  return own;
}

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
  Counters counters_;

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

absl::StatusOr<size_t> DiskChunkCache::ReadAt(uint64_t offset, absl::Span<char> out,
                                              const ReadOptions& options) {
  const std::optional<ByteRange> range = ByteRange::Clip(offset, out.size(), size_);
  if (!range) {
    return absl::OutOfRangeError(
        absl::StrCat(Context({offset, out.size()}), ": the file has ", size_, " bytes"));
  }
  if (options.priority == Priority::kDemand && !options.relayed && options.relays_left > 0 &&
      options.sources == SourcePolicy::kPeerAndBase) {
    ReadAheadOf(*range);
  }
  uint64_t at = range->offset;
  absl::Time patience = absl::InfiniteFuture();
  while (at < range->end()) {
    const ByteRange rest{at, range->end() - at};
    char* const target = out.data() + (at - offset);
    Next next = Next::kReadCache;
    uint64_t present = PresentBytes(at, rest.length);
    if (present < rest.length && options.sources != SourcePolicy::kPeerAndBase) {
      counters_.passed_for_source->Add();
      PEERCHUNK_RETURN_IF_ERROR(PassThrough(rest, target, options));
      break;
    }
    if (present == 0) {
      if (options.relays_left == 0) {
        return absl::UnavailableError(
            absl::StrCat(Context(rest), ": not held here, and no relay is allowed"));
      }
      PEERCHUNK_ASSIGN_OR_RETURN(next, AwaitBlock(rest, options, patience));
      present = PresentBytes(at, rest.length);
    }
    if (next == Next::kReadCache) {
      if (pages_.Read({at, present}, target, CachedPages::Patience::kWait) ==
          CachedPages::Outcome::kRead) {
        at += present;
        continue;
      }
      // The copy is at fault, not the object: read around it.
      counters_.passed_for_bad_disk->Add();
    } else {
      const uint64_t block = at / kPageBytes;
      if (present_.IsSet(block)) continue;
      counters_.passed_for_disk->Add();
      const uint64_t next_present = present_.FindSet(block, present_.blocks());
      present = std::min(rest.length, next_present * kPageBytes - at);
    }
    PEERCHUNK_RETURN_IF_ERROR(PassThrough({at, present}, target, options));
    at += present;
  }
  return range->length;
}

bool DiskChunkCache::TryReadAt(uint64_t offset, absl::Span<char> out) {
  return !out.empty() && PresentBytes(offset, out.size()) == out.size() &&
         pages_.Read({offset, out.size()}, out.data(), CachedPages::Patience::kNow) ==
             CachedPages::Outcome::kRead;
}

// Checked here, unlike what a node has paused itself: a copy that is spoilt can be fetched again,
// and need not make its readers turn away from this node.
absl::StatusOr<std::vector<Run>> DiskChunkCache::ReadRuns(uint64_t offset, absl::Span<char> out,
                                                          const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, ReadAt(offset, out, options));
  std::vector<Run> runs = pages_.Runs({offset, got}, got);
  return runs.empty() ? CutIntoRuns(std::string_view(out.data(), got)) : std::move(runs);
}

std::vector<Run> DiskChunkCache::TryReadRuns(uint64_t offset, uint64_t length, absl::Span<char> out,
                                             const ReadOptions& options) {
  constexpr uint64_t kBlock = CachedPages::kBlockBytes;
  const uint64_t here = PresentBytes(offset, std::min(length, kBlock - offset % kBlock));
  std::vector<Run> runs = pages_.Runs({offset, here}, out.size());
  if (runs.empty()) return BuildFile::TryReadRuns(offset, length, out, options);
  uint64_t packed = 0;
  for (const Run& run : runs) {
    if (run.zero) continue;
    if (pages_.Read({offset + run.offset, run.length}, out.data() + packed,
                    CachedPages::Patience::kNow) != CachedPages::Outcome::kRead) {
      return {};
    }
    packed += run.length;
  }
  return runs;
}

absl::StatusOr<size_t> DiskChunkCache::PassThrough(ByteRange range, char* out,
                                                   const ReadOptions& options) {
  if (options.relays_left == 0) {
    return absl::UnavailableError(
        absl::StrCat(Context(range), ": not held here, and no relay is allowed"));
  }
  ReadOptions upstream_options = options;
  if (options.relayed) {
    upstream_options.relays_left = options.relays_left - 1;
    upstream_options.relayed = false;
  }
  absl::StatusOr<size_t> got =
      upstream_->ReadAt(range.offset, absl::MakeSpan(out, range.length), upstream_options);
  if (!got.ok()) return Annotate(got.status(), Context(range));
  if (*got != range.length) {
    return absl::DataLossError(
        absl::StrCat(Context(range), ": the source ended at ", range.offset + *got, " of ", size_));
  }
  return got;
}

void DiskChunkCache::ReadAheadOf(ByteRange read) {
  const bool missed = PresentBytes(read.offset, read.length) < read.length;
  const ByteRange ahead = read_ahead_.OnRead(read, missed);
  if (ahead.empty()) return;
  counters_.ahead_asked->Add(ahead.length);
  const uint64_t request = std::max(std::min(ahead.length / 4, kMaxAheadRequestBytes) /
                                        options_.chunk_bytes * options_.chunk_bytes,
                                    options_.chunk_bytes);
  const MutexLock lock(mutex_);
  if (DiskIsFull()) return;
  StartMissing(BlocksOf(ahead), request / kPageBytes, {.speculative = true});
}

absl::Status DiskChunkCache::Prefetch(ByteRange range, const ReadOptions& options) {
  const std::optional<ByteRange> clipped = ByteRange::Clip(range.offset, range.length, size_);
  if (!clipped || clipped->empty()) return absl::OkStatus();
  const BlockRange wanted = BlocksOf(*clipped);
  const Purpose purpose{.priority = options.priority, .speculative = true};
  const BlockRange chunks{ChunkAround(wanted.begin).begin, ChunkAround(wanted.end - 1).end};
  for (uint64_t at = chunks.begin; at < chunks.end;) {
    std::shared_ptr<Fetch> fetch;
    {
      const MutexLock lock(mutex_);
      at = present_.FindUnset(at, chunks.end);
      if (at == chunks.end) break;
      if (DiskIsFull()) return absl::ResourceExhaustedError("the disk is full");
      if (const auto other = Bringing(at, purpose)) {
        at = other->blocks.end;
        continue;
      }
      fetch = Add(MissingAround(at, ChunkAround(at), purpose), purpose);
      at = fetch->blocks.end;
    }
    PEERCHUNK_RETURN_IF_ERROR(RunFetch(fetch, options.cancellation));
  }
  return absl::OkStatus();
}

absl::StatusOr<Next> DiskChunkCache::AwaitBlock(ByteRange range, const ReadOptions& options,
                                                absl::Time& patience) {
  const BlockRange wanted = BlocksOf(range);
  Purpose purpose{.priority = options.priority,
                  .relayed = options.relayed,
                  .relays_left = options.relayed ? options.relays_left - 1 : options.relays_left,
                  .besides_relayed = !options.relayed};
  std::shared_ptr<Fetch> overtaking;  // At most one per block that is waited for.
  while (true) {
    std::shared_ptr<Fetch> fetch;
    bool behind = false;
    {
      const MutexLock lock(mutex_);
      if (present_.IsSet(wanted.begin)) return Next::kReadCache;
      if (DiskIsFull()) return Next::kPassThrough;
      uint64_t at = wanted.begin;
      for (uint64_t chunks = 0; at < wanted.end && chunks < kChunksAtOnce; ++chunks) {
        const uint64_t end = std::min(wanted.end, ChunkAround(at).end);
        Want({at, end}, purpose);
        at = end;
      }
      fetch = Bringing(wanted.begin, purpose);
      if (fetch == nullptr) continue;  // It has come meanwhile.
      behind = overtaking == nullptr && purpose.priority == Priority::kDemand && !purpose.relayed &&
               fetch->priority == Priority::kPrefetch;
      if (behind) patience = std::min(patience, options_.clock->Now() + options_.overtake_delay);
    }
    PEERCHUNK_RETURN_IF_ERROR(
        AwaitFetch(*fetch, wanted, range, behind ? patience : absl::InfiniteFuture(), options));
    if (behind && options_.clock->Now() >= patience) {
      {
        const MutexLock lock(mutex_);
        if (present_.IsSet(wanted.begin)) return Next::kReadCache;
        if (fetch->done || !fetch->blocks.Contains(wanted.begin)) continue;
        overtaking = Overtake({wanted.begin, std::min(wanted.end, fetch->blocks.end)}, purpose);
      }
      PEERCHUNK_RETURN_IF_ERROR(
          AwaitFetch(*overtaking, wanted, range, absl::InfiniteFuture(), options));
      continue;  // Here, or with the other as before.
    }
    const MutexLock lock(mutex_);
    if (present_.IsSet(wanted.begin)) return Next::kReadCache;
    // Another fetch brings it now, whether or not this one has ended meanwhile.
    if (!fetch->done || !fetch->blocks.Contains(wanted.begin)) continue;
    if (fetch->abandoned) continue;
    // One of its own may have the room or the luck that a guess had not.
    if (fetch->speculative) continue;
    if (fetch->uncached) return Next::kPassThrough;
    if (fetch->status.ok()) continue;  // It had come, and was found spoilt since.
    // A local reader is allowed more than a relayed fetch was: its own may succeed.
    if (fetch->relayed && !options.relayed) {
      purpose.besides_relayed = false;
      continue;
    }
    return Annotate(fetch->status, Context(range));
  }
}

absl::Status DiskChunkCache::AwaitFetch(Fetch& fetch, BlockRange wanted, ByteRange range,
                                        absl::Time patience, const ReadOptions& options) {
  // Made and destroyed without the lock, which its callback takes.
  const std::stop_callback wake(options.cancellation, [&] {
    const MutexLock lock(mutex_);
    fetch.changed.NotifyAll();
  });
  absl::Status left;
  std::vector<std::shared_ptr<Fetch>> abandoned;
  {
    const MutexLock lock(mutex_);
    ++fetch.waiters;
    while (left.ok() && !present_.IsSet(wanted.begin) && !fetch.done &&
           fetch.blocks.Contains(wanted.begin)) {
      if (options.cancellation.stop_requested()) {
        left = absl::CancelledError(Context(range));
      } else if (options_.clock->Now() >= options.deadline) {
        left = absl::DeadlineExceededError(
            absl::StrCat(Context(range), ": still waiting for the chunk"));
      } else if (options_.clock->Now() >= patience) {
        break;
      } else {
        options_.clock->WaitUntil(fetch.changed, mutex_, std::min(patience, options.deadline));
      }
    }
    --fetch.waiters;
    for (uint64_t at = wanted.begin; !left.ok() && at < wanted.end; ++at) {
      const std::shared_ptr<Fetch> relayed = relayed_fetches_.Find(at);
      if (relayed == nullptr) continue;
      at = relayed->blocks.end - 1;
      if (relayed->waiters > 0) continue;
      relayed->abandoned = true;
      abandoned.push_back(relayed);
    }
  }
  for (const std::shared_ptr<Fetch>& each : abandoned) each->stop.request_stop();
  return left;
}

std::shared_ptr<Fetch> DiskChunkCache::Bringing(uint64_t block, const Purpose& purpose) const {
  if (purpose.relayed) return relayed_fetches_.Find(block);
  std::shared_ptr<Fetch> found = fetches_.Find(block);
  if (found == nullptr && purpose.besides_relayed) found = relayed_fetches_.Find(block);
  return found;
}

BlockRange DiskChunkCache::MissingAround(uint64_t block, BlockRange limits,
                                         const Purpose& purpose) const {
  if (!purpose.relayed) limits = fetches_.FreeAround(block, limits);
  if (purpose.relayed || purpose.besides_relayed) {
    limits = relayed_fetches_.FreeAround(block, limits);
  }
  uint64_t begin = block;
  while (begin > limits.begin && !present_.IsSet(begin - 1)) --begin;
  return {begin, present_.FindSet(block + 1, limits.end)};
}

void DiskChunkCache::Want(BlockRange wanted, const Purpose& purpose) {
  const BlockRange chunk = ChunkAround(wanted.begin);
  bool started = false;
  uint64_t at = present_.FindUnset(wanted.begin, wanted.end);
  while (at < wanted.end) {
    if (const std::shared_ptr<Fetch> fetch = Bringing(at, purpose)) {
      const BlockRange both{at, std::min(wanted.end, fetch->blocks.end)};
      Hurry(fetch, both, purpose);
      at = both.end;
    } else {
      const BlockRange missing = MissingAround(at, chunk, purpose);
      BlockRange own = missing;
      if (purpose.priority == Priority::kDemand) {
        own = WithSmallRest({at, std::min(wanted.end, missing.end)}, missing);
      }
      Start(own, purpose);
      started = true;
      at = own.end;
    }
    at = present_.FindUnset(std::min(at, wanted.end), wanted.end);
  }
  if (!started || purpose.relayed) return;  // Who asked will ask for the rest.
  Purpose rest = purpose;
  rest.priority = Priority::kPrefetch;
  StartMissing({wanted.begin, chunk.end}, present_.blocks(), rest);
  StartMissing({chunk.begin, wanted.begin}, present_.blocks(), rest);
}

void DiskChunkCache::Hurry(const std::shared_ptr<Fetch>& fetch, BlockRange wanted,
                           const Purpose& purpose) {
  if (fetch->begun || fetch->priority <= purpose.priority) return;
  const BlockRange all = fetch->blocks;
  const BlockRange own = WithSmallRest(wanted, all);
  if (own == all) {
    fetch->priority = purpose.priority;
    fetch->speculative = false;
    TasksOf(*fetch).Raise(fetch->task, fetch->priority);
    return;
  }
  const Purpose rest{.priority = fetch->priority,
                     .speculative = fetch->speculative,
                     .relayed = fetch->relayed,
                     .relays_left = fetch->relays_left};
  FetchTable& table = TableOf(*fetch);
  table.Remove(*fetch);
  const BlockRange before{all.begin, own.begin};
  const BlockRange after{own.end, all.end};
  fetch->blocks = after.empty() ? before : after;
  table.Add(fetch);
  if (!before.empty() && !after.empty()) Start(before, rest);
  Purpose first = rest;
  first.priority = purpose.priority;
  first.speculative = false;
  Start(own, first);
  fetch->changed.NotifyAll();
}

void DiskChunkCache::StartMissing(BlockRange blocks, uint64_t most_blocks, const Purpose& purpose) {
  for (uint64_t at = blocks.begin; (at = present_.FindUnset(at, blocks.end)) < blocks.end;) {
    if (const std::shared_ptr<Fetch> fetch = Bringing(at, purpose)) {
      at = fetch->blocks.end;
      continue;
    }
    const BlockRange missing = MissingAround(at, {at, blocks.end}, purpose);
    const BlockRange part{at, std::min(missing.end, at + most_blocks)};
    Start(part, purpose);
    at = part.end;
  }
}

void DiskChunkCache::Start(BlockRange blocks, const Purpose& purpose) {
  Queue(Add(blocks, purpose));
}

void DiskChunkCache::Queue(const std::shared_ptr<Fetch>& fetch) {
  fetch->begun = false;
  TaskGroup& tasks = TasksOf(*fetch);
  fetch->task = tasks.Run(
      fetch->priority, [this, fetch, stop = tasks.stop()] { RunFetch(fetch, stop).IgnoreError(); });
}

// For whoever runs it at once.
std::shared_ptr<Fetch> DiskChunkCache::Add(BlockRange blocks, const Purpose& purpose) {
  auto fetch = std::make_shared<Fetch>();
  fetch->blocks = blocks;
  fetch->relayed = purpose.relayed;
  fetch->relays_left = purpose.relays_left;
  fetch->priority = purpose.priority;
  fetch->speculative = purpose.speculative;
  fetch->begun = true;
  TableOf(*fetch).Add(fetch);
  return fetch;
}

std::shared_ptr<Fetch> DiskChunkCache::Overtake(BlockRange wanted, const Purpose& purpose) {
  if (std::shared_ptr<Fetch> found = overtaking_.Find(wanted.begin)) return found;
  auto fetch = std::make_shared<Fetch>();
  fetch->blocks = overtaking_.FreeAround(wanted.begin, wanted);
  fetch->blocks.end = present_.FindSet(wanted.begin + 1, fetch->blocks.end);
  fetch->relays_left = purpose.relays_left;
  fetch->priority = purpose.priority;
  fetch->overtaking = true;
  overtaking_.Add(fetch);
  Queue(fetch);
  counters_.overtaken->Add();
  return fetch;
}

absl::Status DiskChunkCache::RunFetch(const std::shared_ptr<Fetch>& fetch,
                                      const std::stop_token& cancellation) {
  Priority priority;
  bool full;
  const absl::Time began = options_.clock->Now();
  {
    const MutexLock lock(mutex_);
    fetch->begun = true;
    priority = fetch->priority;
    full = DiskIsFull();
  }
  bool uncached = full;
  absl::Status status;
  if (full) {
    status = absl::ResourceExhaustedError("the disk is full");
  } else {
    const std::stop_callback end(cancellation, [&] { fetch->stop.request_stop(); });
    status = Transfer(*fetch, priority, fetch->stop.get_token(), uncached);
  }
  (status.ok() ? counters_.fetches : uncached ? counters_.uncached : counters_.failures)->Add();
  // The deadline and the cancellation were the fetch's, not those of the readers who get this.
  if (absl::IsDeadlineExceeded(status) || absl::IsCancelled(status)) {
    status = absl::UnavailableError(status.message());
  }
  pages_.AskAllocatedBytes();
  const MutexLock lock(mutex_);
  // What was not tried tells nothing; room that is not to spare for a guess may be had for a
  // reader.
  if (uncached && !full && !fetch->speculative) {
    disk_full_until_ = std::max(disk_full_until_, began + kDiskFullPause);
  }
  TableOf(*fetch).Remove(*fetch);
  fetch->done = true;
  fetch->uncached = uncached;
  fetch->status = status;
  fetch->changed.NotifyAll();
  return status;
}

absl::Status DiskChunkCache::Transfer(Fetch& fetch, Priority priority,
                                      const std::stop_token& cancellation, bool& uncached) {
  // Another fetch may bring the same blocks meanwhile, all of them even between these two.
  const uint64_t missing = present_.FindUnset(fetch.blocks.begin, fetch.blocks.end);
  const uint64_t end_block = present_.FindUnsetEnd(missing, fetch.blocks.end);
  if (missing == end_block) return absl::OkStatus();
  const uint64_t end = std::min(size_, end_block * kPageBytes);
  uint64_t at = missing * kPageBytes;

  const auto& admit =
      fetch.speculative && options_.admit_ahead ? options_.admit_ahead : options_.admit;
  if (admit && !admit(end - at)) {
    uncached = true;
    return absl::ResourceExhaustedError("the cache's disk budget is used up");
  }
  ReadOptions options;
  options.deadline = options_.clock->Now() + options_.fetch_timeout;
  options.cancellation = cancellation;
  options.priority = priority;
  options.relays_left = fetch.relays_left;
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<RangeReader> reader,
                             upstream_->OpenRangeReader(at, end - at, options));
  CachedPages::Writer writer(&pages_, missing);
  while (at < end) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<Extent> extent, reader->Next());
    if (!extent) {
      return absl::DataLossError(
          absl::StrCat("the source ended at ", at, ", the file has ", size_, " bytes"));
    }
    if (extent->offset != at || extent->length == 0 || extent->length > end - at) {
      return absl::InternalError(absl::StrCat("the source gave [", extent->offset, ", +",
                                              extent->length, ") where [", at, ", ", end,
                                              ") was due"));
    }
    const absl::StatusOr<BlockRange> come = writer.Append(*extent);
    if (!come.ok()) {
      const std::string_view cause(come.status().message().data(), come.status().message().size());
      Logger("build").warn("event=cache_write_failed file={} error=\"{}\"", id_.ObjectPath(),
                           cause);
      uncached = true;
      return come.status();
    }
    if (!come->empty()) WakeReadersOf(*come);
    at += extent->length;
  }
  return absl::OkStatus();
}

// They may wait for the same blocks by fetches of every kind; the ones that come second find them
// here and tell nobody.
void DiskChunkCache::WakeReadersOf(BlockRange blocks) {
  const MutexLock lock(mutex_);
  fetches_.NotifyOf(blocks);
  relayed_fetches_.NotifyOf(blocks);
  overtaking_.NotifyOf(blocks);
}

}  // namespace

absl::StatusOr<std::shared_ptr<ChunkCache>> ChunkCache::Open(
    BuildFileId id, File file, uint64_t size, std::shared_ptr<StorageProvider> provider,
    std::shared_ptr<Seekable> upstream, ChunkCacheOptions options) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("open the cache of ", id.ObjectPath(), ": ", AbslView(why)));
  };
  if (options.executor == nullptr) return refuse("no executor");
  if (options.chunk_bytes == 0 || options.chunk_bytes % kPageBytes != 0) {
    return refuse("chunk_bytes is not a positive multiple of 4096");
  }
  if (size > kMaxFileBytes) return refuse(absl::StrCat("a size of ", size, " bytes"));
  const absl::Status sized = file.is_open() ? file.Truncate(size) : absl::OkStatus();
  if (!sized.ok()) return Annotate(sized, absl::StrCat("open the cache of ", id.ObjectPath()));
  return std::make_shared<DiskChunkCache>(id, std::move(file), size, std::move(provider),
                                          std::move(upstream), std::move(options));
}

}  // namespace peerchunk
