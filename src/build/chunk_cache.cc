#include "peerchunk/build/chunk_cache.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include <absl/container/flat_hash_map.h>

#include "base/logging.h"
#include "build/block_bitmap.h"
#include "build/task_group.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// A bit per block is held in memory for a size that a peer declared: 256 MiB of bits at most.
constexpr uint64_t kMaxFileBytes = 8192 * kGiB;
// How many chunks one read has fetched side by side.
constexpr uint64_t kChunksAhead = 8;
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
};

// One transfer of one chunk. Guarded by the cache's mutex.
struct Fetch {
  uint64_t chunk = 0;
  bool relayed = false;
  uint32_t relays_left = 0;
  Priority priority = Priority::kPrefetch;
  TaskGroup::TaskId task = 0;
  bool begun = false;
  bool done = false;
  bool uncached = false;  // When done: the disk has no room; the rest is to be passed through.
  absl::Status status;
  CondVar changed;  // Blocks came, or done.
};

class DiskChunkCache final : public ChunkCache {
 public:
  DiskChunkCache(BuildFileId id, File file, uint64_t size,
                 std::shared_ptr<StorageProvider> provider, std::shared_ptr<Seekable> upstream,
                 ChunkCacheOptions options)
      : id_(id),
        file_(std::move(file)),
        size_(size),
        options_(std::move(options)),
        provider_(std::move(provider)),
        upstream_(std::move(upstream)),
        counters_(options_.metrics),
        present_(CeilDiv(size, kPageBytes)),
        tasks_(options_.executor) {}

  const BuildFileId& id() const override { return id_; }
  uint64_t size() const override { return size_; }
  std::optional<uint32_t> crc32c() const override { return std::nullopt; }
  uint64_t AllocatedBytes() const override {
    return allocated_bytes_.load(std::memory_order_relaxed);
  }
  uint64_t CachedBytes() const override {
    return std::min(size_, present_blocks_.load(std::memory_order_relaxed) * kPageBytes);
  }

  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override;
  uint64_t PresentBytes(uint64_t offset, uint64_t limit) const override;

 private:
  ByteRange ChunkRange(uint64_t chunk) const {
    const uint64_t offset = chunk * options_.chunk_bytes;
    return {offset, std::min(options_.chunk_bytes, size_ - offset)};
  }
  std::string Context(ByteRange range) const {
    return absl::StrCat("read ", id_.ObjectPath(), " [", range.offset, ", +", range.length, ")");
  }

  absl::StatusOr<size_t> PassThrough(ByteRange range, char* out, const ReadOptions& options);
  // Waits until the block at range.offset is here, or says what to do instead. Has the chunks of
  // `range` fetched, as far as kChunksAhead.
  absl::StatusOr<Next> AwaitBlock(ByteRange range, const ReadOptions& options);
  std::shared_ptr<Fetch> JoinAll(ByteRange range, bool join_relayed, const ReadOptions& options)
      PEERCHUNK_REQUIRES(mutex_);
  std::shared_ptr<Fetch> Join(uint64_t chunk, bool join_relayed, const ReadOptions& options)
      PEERCHUNK_REQUIRES(mutex_);

  void RunFetch(const std::shared_ptr<Fetch>& fetch);
  absl::Status Transfer(Fetch& fetch, Priority priority, bool& uncached);
  void Publish(Fetch& fetch, uint64_t begin, uint64_t end);

  const BuildFileId id_;
  const File file_;
  const uint64_t size_;
  const ChunkCacheOptions options_;
  const std::shared_ptr<StorageProvider> provider_;  // Before upstream_, which must go first.
  const std::shared_ptr<Seekable> upstream_;
  Counters counters_;

  BlockBitmap present_;
  std::atomic<uint64_t> present_blocks_{0};
  std::atomic<uint64_t> allocated_bytes_{0};

  Mutex mutex_;
  // By chunk and whether relayed.
  absl::flat_hash_map<std::pair<uint64_t, bool>, std::shared_ptr<Fetch>> fetches_
      PEERCHUNK_GUARDED_BY(mutex_);
  absl::Time disk_full_until_ PEERCHUNK_GUARDED_BY(mutex_) = absl::InfinitePast();

  TaskGroup tasks_;  // Last: its tasks use all of the above.
};

absl::StatusOr<size_t> DiskChunkCache::ReadAt(uint64_t offset, absl::Span<char> out,
                                              const ReadOptions& options) {
  const std::optional<ByteRange> range = ByteRange::Clip(offset, out.size(), size_);
  if (!range) {
    return absl::OutOfRangeError(
        absl::StrCat(Context({offset, out.size()}), ": the file has ", size_, " bytes"));
  }
  uint64_t at = range->offset;
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
      PEERCHUNK_ASSIGN_OR_RETURN(next, AwaitBlock(rest, options));
      present = PresentBytes(at, rest.length);
    }
    if (next == Next::kReadCache) {
      const absl::StatusOr<size_t> got = file_.ReadAt(at, absl::MakeSpan(target, present));
      if (got.ok() && *got == present) {
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

uint64_t DiskChunkCache::PresentBytes(uint64_t offset, uint64_t limit) const {
  if (offset >= size_ || limit == 0) return 0;
  const uint64_t end = offset + std::min(limit, size_ - offset);
  const uint64_t missing = present_.FindUnset(offset / kPageBytes, CeilDiv(end, kPageBytes));
  return std::min(end, std::max(offset, missing * kPageBytes)) - offset;
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

absl::StatusOr<Next> DiskChunkCache::AwaitBlock(ByteRange range, const ReadOptions& options) {
  const uint64_t block = range.offset / kPageBytes;
  for (bool join_relayed = !options.relayed;; join_relayed = false) {
    std::shared_ptr<Fetch> fetch;
    {
      const MutexLock lock(mutex_);
      if (present_.IsSet(block)) return Next::kReadCache;
      fetch = JoinAll(range, join_relayed, options);
      if (fetch == nullptr) return Next::kPassThrough;
    }
    // Made and destroyed without the lock, which its callback takes.
    const std::stop_callback wake(options.cancellation, [&] {
      const MutexLock lock(mutex_);
      fetch->changed.NotifyAll();
    });
    MutexLock lock(mutex_);
    while (!present_.IsSet(block) && !fetch->done) {
      if (options.cancellation.stop_requested()) return absl::CancelledError(Context(range));
      if (options_.clock->Now() >= options.deadline) {
        return absl::DeadlineExceededError(
            absl::StrCat(Context(range), ": still waiting for the chunk"));
      }
      options_.clock->WaitUntil(fetch->changed, mutex_, options.deadline);
    }
    if (present_.IsSet(block)) return Next::kReadCache;
    if (fetch->uncached) return Next::kPassThrough;
    // A local reader is allowed more than a relayed fetch was: its own may succeed.
    if (fetch->relayed && !options.relayed) continue;
    return Annotate(fetch->status, Context(range));
  }
}

std::shared_ptr<Fetch> DiskChunkCache::JoinAll(ByteRange range, bool join_relayed,
                                               const ReadOptions& options) {
  if (!file_.is_open() || options_.clock->Now() < disk_full_until_) return nullptr;
  const uint64_t first = range.offset / options_.chunk_bytes;
  const uint64_t last =
      std::min((range.end() - 1) / options_.chunk_bytes, first + kChunksAhead - 1);
  std::shared_ptr<Fetch> of_first = Join(first, join_relayed, options);
  for (uint64_t chunk = first + 1; chunk <= last; ++chunk) {
    const ByteRange whole = ChunkRange(chunk);
    const uint64_t begin = whole.offset / kPageBytes;
    const uint64_t end = CeilDiv(std::min(whole.end(), range.end()), kPageBytes);
    if (present_.FindUnset(begin, end) < end) Join(chunk, join_relayed, options);
  }
  return of_first;
}

std::shared_ptr<Fetch> DiskChunkCache::Join(uint64_t chunk, bool join_relayed,
                                            const ReadOptions& options) {
  auto found = fetches_.find({chunk, options.relayed});
  if (found == fetches_.end() && join_relayed) found = fetches_.find({chunk, true});
  if (found != fetches_.end()) {
    Fetch& fetch = *found->second;
    if (options.priority < fetch.priority) {
      fetch.priority = options.priority;
      if (!fetch.begun) tasks_.Raise(fetch.task, fetch.priority);
    }
    return found->second;
  }
  auto fetch = std::make_shared<Fetch>();
  fetch->chunk = chunk;
  fetch->relayed = options.relayed;
  fetch->relays_left = options.relayed ? options.relays_left - 1 : options.relays_left;
  fetch->priority = options.priority;
  fetch->task = tasks_.Run(fetch->priority, [this, fetch] { RunFetch(fetch); });
  fetches_.emplace(std::pair(chunk, options.relayed), fetch);
  return fetch;
}

void DiskChunkCache::RunFetch(const std::shared_ptr<Fetch>& fetch) {
  Priority priority;
  {
    const MutexLock lock(mutex_);
    fetch->begun = true;
    priority = fetch->priority;
  }
  bool uncached = false;
  absl::Status status = Transfer(*fetch, priority, uncached);
  (status.ok() ? counters_.fetches : uncached ? counters_.uncached : counters_.failures)->Add();
  // The deadline and the cancellation were the fetch's, not those of the readers who get this.
  if (absl::IsDeadlineExceeded(status) || absl::IsCancelled(status)) {
    status = absl::UnavailableError(status.message());
  }
  if (const auto allocated = file_.AllocatedBytes(); allocated.ok()) {
    allocated_bytes_.store(*allocated, std::memory_order_relaxed);
  }
  const MutexLock lock(mutex_);
  if (uncached) disk_full_until_ = options_.clock->Now() + kDiskFullPause;
  fetches_.erase({fetch->chunk, fetch->relayed});
  fetch->done = true;
  fetch->uncached = uncached;
  fetch->status = std::move(status);
  fetch->changed.NotifyAll();
}

absl::Status DiskChunkCache::Transfer(Fetch& fetch, Priority priority, bool& uncached) {
  const ByteRange chunk = ChunkRange(fetch.chunk);
  const uint64_t first_block = chunk.offset / kPageBytes;
  uint64_t end_block = CeilDiv(chunk.end(), kPageBytes);
  const uint64_t missing = present_.FindUnset(first_block, end_block);
  if (missing == end_block) return absl::OkStatus();
  while (present_.IsSet(end_block - 1)) --end_block;
  const uint64_t end = std::min(chunk.end(), end_block * kPageBytes);
  uint64_t at = missing * kPageBytes;

  if (options_.admit && !options_.admit(end - at)) {
    uncached = true;
    return absl::ResourceExhaustedError("the cache's disk budget is used up");
  }
  ReadOptions options;
  options.deadline = options_.clock->Now() + options_.fetch_timeout;
  options.cancellation = tasks_.stop();
  options.priority = priority;
  options.relays_left = fetch.relays_left;
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<RangeReader> reader,
                             upstream_->OpenRangeReader(at, end - at, options));
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
    if (!extent->zero) {  // Zeros stay holes: an object's bytes never change, so none were written.
      const absl::Status written = file_.WriteVectorAt(at, extent->pieces);
      if (!written.ok()) {
        Logger("build").warn("event=cache_write_failed file={} error=\"{}\"", id_.ObjectPath(),
                             std::string_view(written.message().data(), written.message().size()));
        uncached = true;
        return written;
      }
      allocated_bytes_.fetch_add(extent->length, std::memory_order_relaxed);
    }
    Publish(fetch, at, at + extent->length);
    at += extent->length;
  }
  return absl::OkStatus();
}

// [begin, end) was written, and so was all from the fetch's first block to `begin`.
void DiskChunkCache::Publish(Fetch& fetch, uint64_t begin, uint64_t end) {
  const uint64_t end_block = end == size_ ? present_.blocks() : end / kPageBytes;
  const uint64_t added = present_.Set(begin / kPageBytes, end_block);
  if (added == 0) return;
  present_blocks_.fetch_add(added, std::memory_order_relaxed);
  const MutexLock lock(mutex_);
  fetch.changed.NotifyAll();
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
