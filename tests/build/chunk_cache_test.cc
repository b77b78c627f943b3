#include "peerchunk/build/chunk_cache.h"

#include <atomic>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/build/chunk_cache_fixture.h"
#include "tests/build/held_executor.h"

namespace peerchunk::test {
namespace {

StorageFault StallAfter(uint64_t bytes) {
  return {.times = 1, .after_bytes = bytes, .stall = true};
}

TEST_F(ChunkCacheTest, AnyRangeReadsAsTheObject) {
  Open(SampleBytes(5 * kChunk + 1234, 1));
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    const uint64_t offset = random() % (bytes_.size() + 1);
    ExpectRead(offset, random() % (3 * kChunk));
  }
  ExpectRead(0, bytes_.size() + 100);
  EXPECT_EQ(cache_->CachedBytes(), bytes_.size());
  EXPECT_EQ(cache_->PresentBytes(0, UINT64_MAX), bytes_.size());
  EXPECT_EQ(cache_->size(), bytes_.size());
  EXPECT_EQ(cache_->crc32c(), std::nullopt);
}

TEST_F(ChunkCacheTest, EachChunkIsFetchedOnce) {
  Open(SampleBytes(3 * kChunk, 2));
  for (int i = 0; i < 3; ++i) ExpectRead(0, bytes_.size());
  EXPECT_EQ(upstream_->fetches().size(), 3u);
  cache_ = nullptr;  // Readers need not wait for a fetch to end.
  EXPECT_EQ(Fetches("ok"), 3u);
}

TEST_F(ChunkCacheTest, EdgesOfTheFile) {
  Open(SampleBytes(kPage + 10, 3));
  EXPECT_EQ(*Read(kPage + 10, 5), "");
  EXPECT_EQ(CodeOf(Read(kPage + 11, 1)), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(CodeOf(Read(UINT64_MAX, 1)), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(cache_->PresentBytes(0, 10), 0u);
  ExpectRead(kPage + 9, 1);
  EXPECT_EQ(cache_->PresentBytes(kPage, 100), 10u) << "the last block is short";
  EXPECT_EQ(cache_->PresentBytes(kPage + 10, 1), 0u);
  EXPECT_EQ(cache_->PresentBytes(UINT64_MAX, 1), 0u);
}

TEST_F(ChunkCacheTest, AnEmptyObjectReadsAsEmpty) {
  Open("");
  EXPECT_EQ(*Read(0, 10), "");
  EXPECT_EQ(upstream_->fetches().size(), 0u);
}

TEST_F(ChunkCacheTest, ZerosStayHoles) {
  std::string bytes(16 * kChunk, '\0');
  bytes.replace(5 * kChunk, kPage, SampleBytes(kPage, 4));
  Open(bytes);
  ExpectRead(0, bytes_.size());
  EXPECT_EQ(cache_->CachedBytes(), bytes_.size());
  EXPECT_LE(cache_->AllocatedBytes(), 2 * kPage);
}

TEST_F(ChunkCacheTest, NoByteIsFetchedTwiceForManyReaders) {
  Open(SampleBytes(kChunk, 5));
  faults_->AddFault(StallAfter(0));
  std::vector<std::thread> readers;
  for (uint64_t i = 0; i < 8; ++i) {
    readers.emplace_back([&, i] { ExpectRead(i * kPage, 2 * kPage); });
  }
  faults_->AwaitStalled(1);
  faults_->ClearFaults();
  for (std::thread& reader : readers) reader.join();
  ExpectRead(0, kChunk);
  EXPECT_EQ(faults_->bytes_read(), kChunk);
}

TEST_F(ChunkCacheTest, AReaderIsWokenWhenItsOwnBytesAreThere) {
  Open(SampleBytes(8 * kPage, 6));
  faults_->AddFault(StallAfter(2 * kPage));
  std::thread late([&] { ExpectRead(7 * kPage, kPage); });
  faults_->AwaitStalled(1);
  // The fetch hangs behind the second page, and these do not wait for it.
  ExpectRead(0, 2 * kPage);
  EXPECT_EQ(cache_->PresentBytes(0, 8 * kPage), 2 * kPage);
  faults_->ClearFaults();
  late.join();
}

// Fetches run when the test says so, on its own thread; readers wait on the virtual clock.
class HeldChunkCacheTest : public ChunkCacheTest {
 protected:
  HeldChunkCacheTest() { options_.executor = &held_; }
  ~HeldChunkCacheTest() override { cache_ = nullptr; }

  // A limit far away, so that the clock sees who waits.
  ReadOptions Patient(Priority priority = Priority::kDemand) {
    ReadOptions options;
    options.deadline = clock_.Now() + absl::Hours(1);
    options.priority = priority;
    return options;
  }
  ReadOptions Relayed() {
    ReadOptions options = Patient();
    options.relayed = true;
    return options;
  }

  HeldExecutor held_;
};

TEST_F(HeldChunkCacheTest, AFailureWakesAllAndIsNotRemembered) {
  Open(SampleBytes(kChunk, 7));
  faults_->AddFault({.times = 1, .error = absl::PermissionDeniedError("planted")});
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      EXPECT_EQ(CodeOf(Read(4 * kPage, kPage, Patient())), absl::StatusCode::kPermissionDenied);
    });
  }
  clock_.AwaitWaiters(4);
  held_.RunAll();
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(upstream_->fetches().size(), 2u) << "one for all of them, and one for the rest";

  std::thread again([&] { ExpectRead(4 * kPage, kPage, Patient()); });
  clock_.AwaitWaiters(1);
  held_.RunAll();
  again.join();
}

TEST_F(HeldChunkCacheTest, AReaderOutOfTimeLeavesTheFetchToTheOthers) {
  Open(SampleBytes(kChunk, 8));
  ReadOptions hasty;
  hasty.deadline = clock_.Now() + absl::Seconds(1);
  std::thread first(
      [&] { EXPECT_EQ(CodeOf(Read(0, kPage, hasty)), absl::StatusCode::kDeadlineExceeded); });
  held_.AwaitQueued(Priority::kDemand, 1);
  clock_.AwaitWaiters(1);
  std::thread second([&] { ExpectRead(kPage, kPage, Patient()); });
  clock_.AwaitWaiters(2);
  clock_.Advance(absl::Seconds(2));
  first.join();
  held_.RunAll();
  second.join();
  EXPECT_EQ(faults_->bytes_read(), kChunk);
}

TEST_F(HeldChunkCacheTest, ACancelledReaderLeavesTheFetchToTheOthers) {
  Open(SampleBytes(kChunk, 9));
  std::stop_source stop;
  ReadOptions options = Patient();
  options.cancellation = stop.get_token();
  std::thread first(
      [&] { EXPECT_EQ(CodeOf(Read(0, kPage, options)), absl::StatusCode::kCancelled); });
  clock_.AwaitWaiters(1);
  std::thread second([&] { ExpectRead(kPage, kPage, Patient()); });
  clock_.AwaitWaiters(2);
  stop.request_stop();
  first.join();
  held_.RunAll();
  second.join();
  EXPECT_FALSE(upstream_->fetches().front().cancellation.stop_requested());
}

TEST_F(HeldChunkCacheTest, ADemandReaderRaisesAQueuedPrefetch) {
  Open(SampleBytes(3 * kChunk, 10));
  std::thread prefetch([&] { ExpectRead(0, 3 * kChunk, Patient(Priority::kPrefetch)); });
  held_.AwaitQueued(Priority::kPrefetch, 3);
  std::thread demand([&] { ExpectRead(2 * kChunk, kPage, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  ASSERT_TRUE(held_.RunNext());
  demand.join();  // Served though two prefetches were queued before.
  EXPECT_EQ(upstream_->fetches().front().priority, Priority::kDemand);
  held_.RunAll();
  prefetch.join();
  EXPECT_EQ(faults_->bytes_read(), 3 * kChunk);
  EXPECT_EQ(upstream_->fetches().back().priority, Priority::kPrefetch);
}

TEST_F(HeldChunkCacheTest, AFaultIsAnsweredBeforeTheRestOfItsChunkIsAskedFor) {
  Open(SampleBytes(2 * kChunk, 30));
  std::thread fault([&] { ExpectRead(20 * kPage + 5, 100, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  held_.AwaitQueued(Priority::kPrefetch, 2);
  ASSERT_TRUE(held_.RunNext());
  fault.join();
  EXPECT_EQ(cache_->CachedBytes(), kPage);
  EXPECT_EQ(faults_->bytes_read(), kPage) << "its own bytes and no others";
  EXPECT_EQ(upstream_->fetches().at(0).priority, Priority::kDemand);
  held_.RunAll();
  EXPECT_EQ(cache_->PresentBytes(0, 2 * kChunk), kChunk) << "the rest of its chunk, and no other";
  EXPECT_EQ(faults_->bytes_read(), kChunk) << "no byte twice";
  ASSERT_EQ(upstream_->fetches().size(), 3u);
  EXPECT_EQ(upstream_->fetches()[1].priority, Priority::kPrefetch);
  EXPECT_EQ(upstream_->fetches()[2].priority, Priority::kPrefetch);
}

TEST_F(HeldChunkCacheTest, ASecondFaultOfAChunkComesBeforeItsRest) {
  Open(SampleBytes(kChunk, 31));
  std::thread first([&] { ExpectRead(0, kPage, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  std::thread second([&] { ExpectRead(30 * kPage, kPage, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 2);
  std::thread rest([&] { ExpectRead(0, kChunk, Patient(Priority::kPrefetch)); });
  clock_.AwaitWaiters(3);
  ASSERT_TRUE(held_.RunNext());
  ASSERT_TRUE(held_.RunNext());
  first.join();
  second.join();
  EXPECT_EQ(cache_->CachedBytes(), 2 * kPage);
  held_.RunAll();
  rest.join();
  EXPECT_EQ(faults_->bytes_read(), kChunk);
}

TEST_F(HeldChunkCacheTest, WhoWaitsForARestThatIsCutIsServedAllTheSame) {
  Open(SampleBytes(kChunk, 32));
  std::thread first([&] { ExpectRead(0, kPage, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  std::thread waits([&] { ExpectRead(30 * kPage, kPage, Patient(Priority::kPrefetch)); });
  clock_.AwaitWaiters(2);
  std::thread cuts([&] { ExpectRead(30 * kPage, kPage, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 2);
  ASSERT_TRUE(held_.RunNext());
  ASSERT_TRUE(held_.RunNext());
  first.join();
  waits.join();
  cuts.join();
  held_.RunAll();
  EXPECT_EQ(faults_->bytes_read(), kChunk);
}

TEST_F(HeldChunkCacheTest, AFailedRestIsFetchedAgainWhenAskedFor) {
  Open(SampleBytes(kChunk, 33));
  faults_->AddFault({.skip = 1, .times = 1, .error = absl::UnavailableError("planted")});
  std::thread first([&] { ExpectRead(0, kPage, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  held_.RunAll();
  first.join();
  EXPECT_EQ(cache_->CachedBytes(), kPage);
  EXPECT_EQ(Fetches("error"), 1u);
  std::thread second([&] { ExpectRead(40 * kPage, kPage, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  held_.RunAll();
  second.join();
  EXPECT_EQ(cache_->CachedBytes(), kChunk);
  EXPECT_EQ(faults_->bytes_read(), kChunk);
}

// Blocks inside Run while a test says so: whoever queues a fetch then holds the cache's lock.
class BlockingExecutor final : public Executor {
 public:
  explicit BlockingExecutor(Executor& base) : base_(base) {}
  void Run(Priority priority, std::function<void()> task) override {
    {
      const MutexLock lock(mutex_);
      ++inside_;
      changed_.NotifyAll();
      while (blocked_) changed_.Wait(mutex_);
      --inside_;
    }
    base_.Run(priority, std::move(task));
  }
  void Block(bool blocked) {
    const MutexLock lock(mutex_);
    blocked_ = blocked;
    changed_.NotifyAll();
  }
  void AwaitInside() {
    const MutexLock lock(mutex_);
    while (inside_ == 0) changed_.Wait(mutex_);
  }

 private:
  Executor& base_;
  Mutex mutex_;
  CondVar changed_;
  bool blocked_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  int inside_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
};

TEST_F(ChunkCacheTest, WhatIsPresentIsReadWhileTheLockIsHeld) {
  BlockingExecutor executor(pool_);
  options_.executor = &executor;
  Open(SampleBytes(2 * kChunk, 34));
  ExpectRead(0, kChunk);
  executor.Block(true);
  std::thread missing([&] { ExpectRead(kChunk + 5, kPage); });
  executor.AwaitInside();  // Under the cache's lock, until told otherwise.
  for (uint64_t page = 0; page < 64; ++page) ExpectRead(page * kPage, kPage);
  EXPECT_EQ(cache_->PresentBytes(0, 2 * kChunk), kChunk);
  executor.Block(false);
  missing.join();
  cache_ = nullptr;  // Before its executor.
}

TEST_F(HeldChunkCacheTest, ReadAheadComesBehindEveryDemandReadAndIsRaisedWhenReached) {
  Open(SampleBytes(8 * kChunk, 35));
  const auto read = [&](uint64_t offset, uint64_t length) {
    std::thread reader([&] { ExpectRead(offset, length, Patient()); });
    held_.AwaitQueued(Priority::kDemand, 1);
    held_.RunNext();
    reader.join();
  };
  read(0, kChunk);
  EXPECT_FALSE(held_.RunNext()) << "one read is no sequence";
  read(kChunk, kChunk);
  held_.AwaitQueued(Priority::kPrefetch, 1);
  EXPECT_EQ(metrics_.CounterValue("peerchunk_read_ahead_bytes_total", {{"outcome", "asked"}}),
            kChunk);
  read(2 * kChunk, kPage);  // Reaches what waits its turn: its own bytes come first.
  EXPECT_EQ(cache_->PresentBytes(2 * kChunk, kChunk), kPage);
  held_.RunAll();
  EXPECT_EQ(cache_->PresentBytes(2 * kChunk, kChunk), kChunk);
  EXPECT_EQ(upstream_->fetches().back().priority, Priority::kPrefetch);
  cache_ = nullptr;
  EXPECT_EQ(metrics_.CounterValue("peerchunk_read_ahead_bytes_total", {{"outcome", "used"}}),
            kPage);
}

TEST_F(HeldChunkCacheTest, OnlyDemandReadsOfThisNodeAreReadAheadOf) {
  Open(SampleBytes(16 * kChunk, 36));
  ReadOptions base_only = Patient();
  base_only.sources = SourcePolicy::kBaseOnly;
  for (const ReadOptions& options : {Relayed(), Patient(Priority::kPrefetch), base_only}) {
    for (uint64_t chunk = 0; chunk < 4; ++chunk) {
      std::thread reader([&] { ExpectRead(chunk * kChunk, kChunk, options); });
      if (options.sources == SourcePolicy::kPeerAndBase &&
          chunk * kChunk >= cache_->CachedBytes()) {
        held_.AwaitQueued(options.priority, 1);
        held_.RunNext();
      }
      reader.join();
    }
    EXPECT_FALSE(held_.RunNext());
  }
  EXPECT_EQ(metrics_.CounterValue("peerchunk_read_ahead_bytes_total", {{"outcome", "asked"}}), 0u);
}

TEST_F(HeldChunkCacheTest, ReadAheadTakesNoRoomThatIsNotToSpare) {
  options_.admit_ahead = [](uint64_t) { return false; };
  Open(SampleBytes(8 * kChunk, 37));
  for (uint64_t chunk = 0; chunk < 4; ++chunk) {
    std::thread reader([&] { ExpectRead(chunk * kChunk, kChunk, Patient()); });
    held_.AwaitQueued(Priority::kDemand, 1);
    held_.RunAll();
    reader.join();
  }
  EXPECT_EQ(cache_->CachedBytes(), 4 * kChunk) << "reads go on as if nothing was";
  EXPECT_EQ(Passed("disk_full"), 0u);
  EXPECT_GE(Fetches("uncached"), 1u);
}

TEST_F(HeldChunkCacheTest, AReaderOfWhatAGuessFailedToBringBringsItItself) {
  Open(SampleBytes(8 * kChunk, 38));
  for (uint64_t chunk = 0; chunk < 2; ++chunk) {
    std::thread reader([&] { ExpectRead(chunk * kChunk, kChunk, Patient()); });
    held_.AwaitQueued(Priority::kDemand, 1);
    held_.RunNext();
    reader.join();
  }
  held_.AwaitQueued(Priority::kPrefetch, 1);  // The third chunk.
  std::thread reader([&] { ExpectRead(2 * kChunk, kChunk, Patient(Priority::kPrefetch)); });
  clock_.AwaitWaiters(1);
  faults_->AddFault({.times = 1, .error = absl::UnavailableError("planted")});
  held_.RunNext();
  held_.AwaitQueued(Priority::kPrefetch, 1);
  held_.RunAll();
  reader.join();
}

TEST_F(HeldChunkCacheTest, PrefetchBringsWholeChunksOnItsCallersThread) {
  Open(SampleBytes(4 * kChunk + 10, 39));
  EXPECT_OK(cache_->Prefetch({kChunk + 5, kChunk}, {.priority = Priority::kPrefetch}));
  EXPECT_EQ(cache_->PresentBytes(kChunk, UINT64_MAX), 2 * kChunk);
  EXPECT_EQ(cache_->CachedBytes(), 2 * kChunk);
  EXPECT_EQ(upstream_->fetches().size(), 2u);
  EXPECT_OK(cache_->Prefetch({kChunk, kChunk}, {}));
  EXPECT_EQ(upstream_->fetches().size(), 2u) << "all here";
  EXPECT_OK(cache_->Prefetch({4 * kChunk, kChunk}, {}));
  EXPECT_OK(cache_->Prefetch({UINT64_MAX, 1}, {})) << "nothing there";
  EXPECT_EQ(cache_->CachedBytes(), 2 * kChunk + kPage);
  EXPECT_FALSE(held_.RunNext());
}

TEST_F(HeldChunkCacheTest, PrefetchLeavesWhatOthersBringToThem) {
  Open(SampleBytes(kChunk, 40));
  std::thread fault([&] { ExpectRead(0, kPage, Patient()); });
  held_.AwaitQueued(Priority::kPrefetch, 1);
  EXPECT_OK(cache_->Prefetch({0, kChunk}, {}));
  EXPECT_EQ(faults_->bytes_read(), 0u);
  held_.RunAll();
  fault.join();
  EXPECT_EQ(faults_->bytes_read(), kChunk);
}

TEST_F(HeldChunkCacheTest, PrefetchSaysWhyItStopped) {
  bool room = true;
  options_.admit_ahead = [&room](uint64_t) { return room; };
  Open(SampleBytes(2 * kChunk, 41));
  faults_->AddFault({.times = 1, .error = absl::PermissionDeniedError("planted")});
  EXPECT_EQ(cache_->Prefetch({0, 1}, {}).code(), absl::StatusCode::kPermissionDenied);
  room = false;
  EXPECT_EQ(cache_->Prefetch({0, 1}, {}).code(), absl::StatusCode::kResourceExhausted);
  std::stop_source stop;
  stop.request_stop();
  room = true;
  EXPECT_EQ(cache_->Prefetch({0, 1}, {.cancellation = stop.get_token()}).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_OK(cache_->Prefetch({0, 2 * kChunk}, {}));
  EXPECT_EQ(cache_->CachedBytes(), 2 * kChunk);
}

TEST_F(HeldChunkCacheTest, AReadAsksForOnlyAFewChunksAtOnce) {
  Open(SampleBytes(20 * kChunk, 11));
  std::thread reader([&] { ExpectRead(0, bytes_.size(), Patient()); });
  clock_.AwaitWaiters(1);
  size_t queued = 0;
  while (held_.RunNext()) ++queued;  // More are asked for once these are here.
  while (cache_->CachedBytes() < bytes_.size()) held_.RunNext();
  reader.join();
  EXPECT_GE(queued, 8u);
  EXPECT_EQ(upstream_->fetches().size(), 20u);
}

TEST_F(HeldChunkCacheTest, WithoutRelaysAReadTakesOnlyWhatIsPresent) {
  Open(SampleBytes(2 * kChunk, 12));
  std::thread reader([&] { ExpectRead(0, kPage, Patient()); });
  clock_.AwaitWaiters(1);
  ReadOptions present_only = Patient();
  present_only.relays_left = 0;
  EXPECT_EQ(CodeOf(Read(kPage, kPage, present_only)), absl::StatusCode::kUnavailable)
      << "joins no fetch";
  EXPECT_EQ(CodeOf(Read(kChunk, kPage, present_only)), absl::StatusCode::kUnavailable)
      << "starts none";
  held_.RunAll();
  reader.join();
  ExpectRead(0, kChunk, present_only);
  EXPECT_EQ(CodeOf(Read(kChunk - 1, 2, present_only)), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(held_.RunNext());
  EXPECT_EQ(faults_->bytes_read(), kChunk);
}

TEST_F(HeldChunkCacheTest, ARelayedReadSharesNoFetchThatMayItselfBeRelayed) {
  Open(SampleBytes(kChunk, 13));
  std::thread local([&] { ExpectRead(0, kChunk, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  std::thread relayed([&] { ExpectRead(0, kChunk, Relayed()); });
  held_.AwaitQueued(Priority::kDemand, 2);
  std::thread second_relayed([&] { ExpectRead(kPage, kPage, Relayed()); });
  clock_.AwaitWaiters(3);
  held_.RunAll();
  local.join();
  relayed.join();
  second_relayed.join();
  // The second found all blocks present.
  ASSERT_EQ(upstream_->fetches().size(), 1u);
  EXPECT_EQ(upstream_->fetches()[0].relays_left, 1u);
  EXPECT_FALSE(upstream_->fetches()[0].relayed);
}

TEST_F(HeldChunkCacheTest, ARelayedFetchAsksForNoFurtherRelay) {
  Open(SampleBytes(kChunk, 14));
  std::thread relayed([&] { ExpectRead(0, kPage, Relayed()); });
  clock_.AwaitWaiters(1);
  held_.RunAll();
  relayed.join();
  // And brings what was asked for: who asked has the rest of the chunk fetched by itself.
  ASSERT_EQ(upstream_->fetches().size(), 1u);
  EXPECT_EQ(upstream_->fetches()[0].relays_left, 0u);
  EXPECT_LT(cache_->CachedBytes(), kChunk / 2);
}

TEST_F(HeldChunkCacheTest, RelayedFetchesQueueByThemselves) {
  HeldExecutor relays;
  options_.relay_executor = &relays;
  Open(SampleBytes(2 * kChunk, 14));
  std::thread relayed([&] { ExpectRead(kChunk, kPage, Relayed()); });
  relays.AwaitQueued(Priority::kDemand, 1);
  std::thread local([&] { ExpectRead(0, kPage, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  held_.RunAll();
  local.join();
  EXPECT_EQ(cache_->PresentBytes(kChunk, kPage), 0u);
  relays.RunAll();
  relayed.join();
  cache_ = nullptr;
}

TEST_F(ChunkCacheTest, ARelayedFetchEndsWhenNobodyWaitsForItAnyLonger) {
  Open(SampleBytes(4 * kChunk, 14));
  faults_->AddFault({.stall = true});
  std::stop_source first_leaves;
  std::stop_source second_leaves;
  const auto relayed = [&](std::stop_source& leaves) {
    ReadOptions options;
    options.relayed = true;
    options.cancellation = leaves.get_token();
    return std::thread([this, options] {
      EXPECT_EQ(CodeOf(Read(0, 2 * kChunk, options)), absl::StatusCode::kCancelled);
    });
  };
  std::thread first = relayed(first_leaves);
  faults_->AwaitStalled(2);
  std::thread second = relayed(second_leaves);
  first_leaves.request_stop();
  first.join();
  second_leaves.request_stop();
  second.join();
  while (Fetches("error") < 2) std::this_thread::yield();  // Both, with nothing let go.
  faults_->ClearFaults();
  ExpectRead(0, 2 * kChunk);
}

// A fault behind a fetch ahead of it that has begun and does not come.
TEST_F(ChunkCacheTest, AFaultOvertakesAPrefetchThatHasBegun) {
  Open(SampleBytes(kChunk, 15));
  faults_->AddFault({.times = 1, .stall = true});
  std::thread ahead([&] {
    EXPECT_OK(cache_->Prefetch({0, kChunk}, {.priority = Priority::kPrefetch}));
  });
  faults_->AwaitStalled(1);
  ReadOptions options;
  options.deadline = clock_.Now() + absl::Hours(1);
  std::thread reader([&] { ExpectRead(8 * kPage, kPage, options); });
  std::thread other([&] { ExpectRead(8 * kPage, 2 * kPage, options); });
  clock_.AwaitWaiters(3);  // And what is stalled.
  EXPECT_EQ(upstream_->fetches().size(), 1u);
  clock_.Advance(options_.overtake_delay);
  reader.join();
  other.join();
  EXPECT_EQ(cache_->PresentBytes(8 * kPage, kPage), kPage);
  EXPECT_EQ(upstream_->fetches()[1].priority, Priority::kDemand);
  EXPECT_LE(upstream_->fetches().size(), 3u);
  EXPECT_LE(cache_->AllocatedBytes(), 8 * kPage);
  faults_->ClearFaults();
  ahead.join();
  ExpectRead(0, kChunk);
  EXPECT_EQ(cache_->CachedBytes(), kChunk);
  EXPECT_EQ(cache_->AllocatedBytes(), kChunk);
  EXPECT_EQ(metrics_.CounterValue("peerchunk_overtaken_fetches_total"),
            upstream_->fetches().size() - 1);
}

TEST_F(ChunkCacheTest, WhoeverBringsItFirstWakesTheReader) {
  Open(SampleBytes(kChunk, 16));
  faults_->AddFault({.stall = true});
  std::thread ahead([&] {
    EXPECT_OK(cache_->Prefetch({0, kChunk}, {.priority = Priority::kPrefetch}));
  });
  faults_->AwaitStalled(1);
  ReadOptions options;
  options.deadline = clock_.Now() + absl::Hours(1);
  std::thread reader([&] { ExpectRead(0, kPage, options); });
  clock_.AwaitWaiters(2);  // And what is stalled.
  clock_.Advance(options_.overtake_delay);
  faults_->AwaitStalled(2);
  faults_->ClearFaults();
  reader.join();
  ahead.join();
}

// The one stalls for as long as it likes; what the other brings is there for the readers of both.
TEST_F(HeldChunkCacheTest, ALocalFetchWakesTheReadersOfARelayedOneAndTheOtherWayRound) {
  for (const bool local_stalls : {false, true}) {
    options_.executor = local_stalls ? static_cast<Executor*>(&pool_) : &held_;
    options_.relay_executor = local_stalls ? static_cast<Executor*>(&held_) : &pool_;
    Open(SampleBytes(kPage, 42));
    faults_->AddFault({.times = 1, .stall = true});
    const auto await_fetch = [&](bool stalls) {
      stalls ? faults_->AwaitStalled(1) : held_.AwaitQueued(Priority::kDemand, 1);
    };
    // The local one first: its reader would join the other.
    std::thread local([&] { ExpectRead(0, kPage, Patient()); });
    await_fetch(local_stalls);
    std::thread relayed([&] { ExpectRead(0, kPage, Relayed()); });
    await_fetch(!local_stalls);
    clock_.AwaitWaiters(3);  // Both readers, and what is stalled.
    ASSERT_TRUE(held_.RunNext());
    local.join();
    relayed.join();
    faults_->ClearFaults();
    cache_ = nullptr;
  }
}

TEST_F(HeldChunkCacheTest, ALocalReaderWhoJoinedARelayedFetchThatFailsStartsItsOwn) {
  Open(SampleBytes(kChunk, 15));
  faults_->AddFault({.times = 1, .error = absl::UnavailableError("not present there")});
  std::thread relayed(
      [&] { EXPECT_EQ(CodeOf(Read(0, kPage, Relayed())), absl::StatusCode::kUnavailable); });
  held_.AwaitQueued(Priority::kDemand, 1);
  clock_.AwaitWaiters(1);
  std::thread local([&] { ExpectRead(0, kPage, Patient()); });
  clock_.AwaitWaiters(2);
  ASSERT_TRUE(held_.RunNext());
  relayed.join();
  held_.AwaitQueued(Priority::kDemand, 1);
  held_.RunAll();
  local.join();
  ASSERT_GE(upstream_->fetches().size(), 2u);
  EXPECT_EQ(upstream_->fetches()[0].relays_left, 0u);
  EXPECT_EQ(upstream_->fetches()[1].relays_left, 1u);
}

TEST_F(ChunkCacheTest, AFetchThatRunsOutOfItsOwnTimeIsUnavailable) {
  Open(SampleBytes(3 * kPage, 16));
  faults_->AddFault(StallAfter(kPage));
  std::thread reader(
      [&] { EXPECT_EQ(CodeOf(Read(2 * kPage, kPage)), absl::StatusCode::kUnavailable); });
  faults_->AwaitStalled(1);
  clock_.AwaitWaiters(1);
  clock_.Advance(options_.fetch_timeout);
  reader.join();
  EXPECT_EQ(cache_->PresentBytes(0, kChunk), kPage) << "what came is kept";
  ExpectRead(2 * kPage, kPage);
}

TEST_F(ChunkCacheTest, AFetchGoesOnWhereAnEarlierOneStopped) {
  Open(SampleBytes(8 * kPage, 17));
  faults_->AddFault(
      {.times = 1, .after_bytes = 3 * kPage + 100, .error = absl::UnavailableError("planted")});
  EXPECT_EQ(CodeOf(Read(5 * kPage, 1)), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cache_->PresentBytes(0, kChunk), 3 * kPage) << "a block in part is not present";
  ExpectRead(0, 8 * kPage);
  EXPECT_EQ(faults_->bytes_read(), 8 * kPage + 100);
}

TEST_F(ChunkCacheTest, AnObjectThatEndsEarlyIsDataLoss) {
  Open(SampleBytes(8 * kPage, 18));
  faults_->AddFault({.times = 1, .after_bytes = kPage, .truncate = true});
  EXPECT_EQ(CodeOf(Read(kPage, kPage)), absl::StatusCode::kDataLoss);
  ExpectRead(0, kChunk);
}

// Answers every range with one extent that a test makes up.
class WrongExtent final : public RangeReader {
 public:
  explicit WrongExtent(Extent extent) : extent_(extent) {}
  absl::StatusOr<std::optional<Extent>> Next() override { return extent_; }

 private:
  const Extent extent_;
};

class WrongSeekable final : public Seekable {
 public:
  explicit WrongSeekable(Extent extent) : extent_(extent) {}
  absl::StatusOr<uint64_t> Size(const ReadOptions&) override { return 0; }
  absl::StatusOr<size_t> ReadAt(uint64_t, absl::Span<char>, const ReadOptions&) override {
    return 0;
  }
  absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(uint64_t, uint64_t,
                                                               const ReadOptions&) override {
    return std::make_unique<WrongExtent>(extent_);
  }
  absl::StatusOr<ObjectStat> StoreFile(const std::string&, const WriteOptions&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<ObjectStat> Stat(const ReadOptions&) override {
    return absl::UnimplementedError("");
  }

 private:
  const Extent extent_;
};

TEST_F(ChunkCacheTest, ExtentsOutOfPlaceAreRefused) {
  for (const Extent& extent : {Extent{.offset = kPage, .length = kPage, .zero = true},
                               Extent{.offset = 0, .length = 0, .zero = true},
                               Extent{.offset = 0, .length = kChunk + 1, .zero = true}}) {
    auto cache = ChunkCache::Open(id_, *dir_.folder().OpenAt("wrong", O_RDWR | O_CREAT), kChunk,
                                  nullptr, std::make_shared<WrongSeekable>(extent), options_);
    ASSERT_OK(cache);
    std::string out(kChunk, '?');
    EXPECT_EQ(CodeOf((*cache)->ReadAt(0, absl::MakeSpan(out), {})), absl::StatusCode::kInternal);
    EXPECT_EQ((*cache)->CachedBytes(), 0u);
  }
}

TEST_F(HeldChunkCacheTest, WithoutRoomOnTheDiskReadsArePassedThrough) {
  File file = ReadOnlyMemory();
  const int fd = file.fd();
  Open(SampleBytes(4 * kChunk, 19), std::move(file));
  Seal(fd);
  std::thread first([&] { ExpectRead(0, 3 * kChunk, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 3);
  held_.RunAll();
  first.join();
  EXPECT_EQ(upstream_->fetches().size(), 1u) << "once the disk is known to be full, none is tried";
  ExpectRead(5, 10);
  ExpectRead(kChunk, 10);
  EXPECT_FALSE(held_.RunNext()) << "the disk is given a moment";
  EXPECT_EQ(cache_->CachedBytes(), 0u);
  EXPECT_GE(Passed("disk_full"), 3u);
  EXPECT_EQ(Fetches("uncached"), 3u);

  clock_.Advance(absl::Seconds(1));
  std::thread again([&] { ExpectRead(kChunk, 10, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  held_.RunAll();
  again.join();
  EXPECT_EQ(upstream_->fetches().size(), 2u) << "and then tried again";
}

TEST_F(ChunkCacheTest, WhatCannotBeCachedStillFillsAroundWhatIs) {
  // A fetch may still run when this function has returned.
  const auto room = std::make_shared<std::atomic<bool>>(true);
  options_.admit = [room](uint64_t bytes) {
    EXPECT_LE(bytes, kChunk);
    return room->load();
  };
  Open(SampleBytes(3 * kChunk, 20));
  ExpectRead(kChunk, kChunk);
  *room = false;
  ExpectRead(0, bytes_.size());
  EXPECT_EQ(cache_->CachedBytes(), kChunk);
  EXPECT_EQ(Passed("disk_full"), 2u);
}

TEST_F(ChunkCacheTest, APassedThroughReadThatEndsEarlyIsDataLoss) {
  options_.admit = [](uint64_t) { return false; };
  Open(SampleBytes(kChunk, 21));
  faults_->AddFault({.after_bytes = 10, .truncate = true});
  EXPECT_EQ(CodeOf(Read(0, kPage)), absl::StatusCode::kDataLoss);
}

TEST_F(ChunkCacheTest, ARelayedReadIsPassedThroughWithoutFurtherRelay) {
  options_.admit = [](uint64_t) { return false; };
  Open(SampleBytes(kChunk, 22));
  ReadOptions relayed;
  relayed.relayed = true;
  ExpectRead(0, kPage, relayed);
  ASSERT_EQ(upstream_->passed().size(), 1u);
  EXPECT_EQ(upstream_->passed()[0].relays_left, 0u);
}

TEST_F(ChunkCacheTest, ADiskThatFailsToReadIsReadAround) {
  Open(SampleBytes(2 * kChunk, 23));
  ExpectRead(0, 2 * kChunk);
  ASSERT_OK(dir_.folder().OpenAt("cache", O_RDWR)->Truncate(kPage));
  ExpectRead(0, 2 * kChunk);
  EXPECT_GE(Passed("disk_error"), 1u);
}

TEST_F(ChunkCacheTest, WithoutRelaysNothingIsPassedThrough) {
  Open(SampleBytes(2 * kChunk, 27));
  ExpectRead(0, kChunk);
  ASSERT_OK(dir_.folder().OpenAt("cache", O_RDWR)->Truncate(kPage));
  ReadOptions present_only;
  present_only.relays_left = 0;
  present_only.relayed = true;
  EXPECT_EQ(CodeOf(Read(2 * kPage, kPage, present_only)), absl::StatusCode::kUnavailable);
  present_only.sources = SourcePolicy::kPeerOnly;
  EXPECT_EQ(CodeOf(Read(kChunk, kPage, present_only)), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(upstream_->passed().empty());
}

TEST_F(ChunkCacheTest, WithoutAFileEveryReadIsPassedThrough) {
  Open(SampleBytes(2 * kChunk, 28), File());
  ExpectRead(10, kChunk);
  EXPECT_EQ(cache_->CachedBytes(), 0u);
  EXPECT_TRUE(upstream_->fetches().empty());
}

TEST_F(ChunkCacheTest, AReadThatNamesOneSourceIsPassedThroughUnlessPresent) {
  Open(SampleBytes(2 * kChunk, 24));
  ReadOptions base_only;
  base_only.sources = SourcePolicy::kBaseOnly;
  ExpectRead(0, kPage, base_only);
  EXPECT_EQ(cache_->CachedBytes(), 0u);
  ASSERT_EQ(upstream_->passed().size(), 1u);
  EXPECT_EQ(upstream_->passed()[0].sources, SourcePolicy::kBaseOnly);
  ExpectRead(0, kChunk);
  ExpectRead(0, kChunk, base_only);
  EXPECT_EQ(upstream_->passed().size(), 1u);
  EXPECT_EQ(Passed("one_source"), 1u);
}

TEST_F(ChunkCacheTest, ClosingCancelsAFetchThatHangs) {
  Open(SampleBytes(3 * kPage, 25));
  faults_->AddFault(StallAfter(0));
  ReadOptions hasty;
  hasty.deadline = clock_.Now() + absl::Seconds(1);
  std::thread reader(
      [&] { EXPECT_EQ(CodeOf(Read(0, 1, hasty)), absl::StatusCode::kDeadlineExceeded); });
  faults_->AwaitStalled(1);
  clock_.AwaitWaiters(2);
  clock_.Advance(absl::Seconds(1));
  reader.join();
  cache_ = nullptr;  // Would hang if the fetch did.
}

TEST_F(ChunkCacheTest, OpenChecksItsOptions) {
  const auto open = [&](uint64_t size) {
    return CodeOf(ChunkCache::Open(id_, *dir_.folder().OpenAt("new", O_RDWR | O_CREAT), size,
                                   faults_, *faults_->OpenSeekable(id_.ObjectPath()), options_));
  };
  EXPECT_EQ(open(10), absl::StatusCode::kOk);
  EXPECT_EQ(open(uint64_t{1} << 60), absl::StatusCode::kInvalidArgument);
  options_.chunk_bytes = 1000;
  EXPECT_EQ(open(10), absl::StatusCode::kInvalidArgument);
  options_.chunk_bytes = 0;
  EXPECT_EQ(open(10), absl::StatusCode::kInvalidArgument);
  options_.chunk_bytes = kChunk;
  options_.executor = nullptr;
  EXPECT_EQ(open(10), absl::StatusCode::kInvalidArgument);
}

// Readers of both kinds, some cancelled, over a base that keeps failing: whatever is returned as OK
// is right, and in the end all of it is.
TEST_F(ChunkCacheTest, ManyReadersOverAFailingBaseNeverSeeWrongBytes) {
  Open(SampleBytes(40 * kChunk + 99, 26));
  for (int i = 0; i < 30; ++i) {
    faults_->AddFault({.skip = static_cast<uint64_t>(i % 3),
                       .times = 1,
                       .after_bytes = static_cast<uint64_t>(i) * 1111,
                       .error = absl::UnavailableError("planted"),
                       .truncate = i % 2 == 0});
  }
  std::vector<std::thread> readers;
  for (uint32_t seed = 0; seed < 8; ++seed) {
    readers.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 60; ++i) {
        const uint64_t offset = random() % bytes_.size();
        const uint64_t length = random() % (3 * kChunk);
        std::stop_source stop;
        ReadOptions options;
        options.relayed = random() % 3 == 0;
        options.priority = random() % 2 == 0 ? Priority::kDemand : Priority::kPrefetch;
        options.cancellation = stop.get_token();
        if (random() % 8 == 0) stop.request_stop();
        const auto got = Read(offset, length, options);
        if (got.ok()) {
          EXPECT_TRUE(*got == bytes_.substr(offset, length));
        }
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  faults_->ClearFaults();
  ExpectRead(0, bytes_.size());
  EXPECT_EQ(cache_->CachedBytes(), bytes_.size());
}

}  // namespace
}  // namespace peerchunk::test
