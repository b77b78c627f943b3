#include <algorithm>
#include <optional>
#include <utility>

#include "base/logging.h"
#include "build/disk_chunk_cache.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// What is left of a chunk beside a reader's own bytes and not more than this comes with them.
constexpr uint64_t kSmallRestBlocks = 8;
// After the disk was found full, reads are passed through this long before the next try.
constexpr absl::Duration kDiskFullPause = absl::Seconds(1);

// `own`, and with it what is left of `all` on either side if that is little.
BlockRange WithSmallRest(BlockRange own, BlockRange all) {
  if (own.begin - all.begin <= kSmallRestBlocks) own.begin = all.begin;
  if (all.end - own.end <= kSmallRestBlocks) own.end = all.end;
  return own;
}

}  // namespace

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

}  // namespace peerchunk
