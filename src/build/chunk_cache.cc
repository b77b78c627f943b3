#include "peerchunk/build/chunk_cache.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "build/disk_chunk_cache.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// A bit per page and a pointer per MiB are held in memory for a size that a peer declared: 320 MiB
// of them at most.
constexpr uint64_t kMaxFileBytes = 8192 * kGiB;
// How many chunks one read has fetched side by side.
constexpr uint64_t kChunksAtOnce = 8;
// One request for bytes read ahead is a part of all that is ahead, and not more than a message.
constexpr uint64_t kMaxAheadRequestBytes = kMiB;

}  // namespace

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

absl::StatusOr<DiskChunkCache::Next> DiskChunkCache::AwaitBlock(ByteRange range,
                                                                const ReadOptions& options,
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
