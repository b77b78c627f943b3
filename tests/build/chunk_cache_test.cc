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

TEST_F(ChunkCacheTest, ReadersOfOneChunkShareOneFetch) {
  Open(SampleBytes(kChunk, 5));
  faults_->AddFault(StallAfter(0));
  std::vector<std::thread> readers;
  for (uint64_t i = 0; i < 8; ++i) {
    readers.emplace_back([&, i] { ExpectRead(i * kPage, 2 * kPage); });
  }
  faults_->AwaitStalled(1);
  faults_->ClearFaults();
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(upstream_->fetches().size(), 1u);
}

TEST_F(ChunkCacheTest, AReaderIsWokenWhenItsOwnBytesAreThere) {
  Open(SampleBytes(kChunk, 6));
  faults_->AddFault(StallAfter(2 * kPage));
  std::thread late([&] { ExpectRead(kChunk - kPage, kPage); });
  faults_->AwaitStalled(1);
  // The fetch hangs behind the second page, and these do not wait for it.
  ExpectRead(0, 2 * kPage);
  EXPECT_EQ(cache_->PresentBytes(0, kChunk), 2 * kPage);
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
  EXPECT_EQ(upstream_->fetches().size(), 1u);

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
  EXPECT_EQ(upstream_->fetches().size(), 1u);
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
  EXPECT_EQ(upstream_->fetches().size(), 3u);
  EXPECT_EQ(upstream_->fetches().back().priority, Priority::kPrefetch);
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
  EXPECT_EQ(upstream_->fetches().size(), 1u);
}

TEST_F(HeldChunkCacheTest, ARelayedReadSharesNoFetchThatMayItselfBeRelayed) {
  Open(SampleBytes(kChunk, 13));
  std::thread local([&] { ExpectRead(0, kPage, Patient()); });
  held_.AwaitQueued(Priority::kDemand, 1);
  std::thread relayed([&] { ExpectRead(0, kPage, Relayed()); });
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
  ASSERT_EQ(upstream_->fetches().size(), 1u);
  EXPECT_EQ(upstream_->fetches()[0].relays_left, 0u);
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
  ASSERT_EQ(upstream_->fetches().size(), 2u);
  EXPECT_EQ(upstream_->fetches()[0].relays_left, 0u);
  EXPECT_EQ(upstream_->fetches()[1].relays_left, 1u);
}

TEST_F(ChunkCacheTest, AFetchThatRunsOutOfItsOwnTimeIsUnavailable) {
  Open(SampleBytes(kChunk, 16));
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
  Open(SampleBytes(kChunk, 17));
  faults_->AddFault(
      {.times = 1, .after_bytes = 3 * kPage + 100, .error = absl::UnavailableError("planted")});
  EXPECT_EQ(CodeOf(Read(5 * kPage, 1)), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cache_->PresentBytes(0, kChunk), 3 * kPage) << "a block in part is not present";
  ExpectRead(0, kChunk);
  EXPECT_EQ(faults_->bytes_read(), kChunk + 100);
}

TEST_F(ChunkCacheTest, AnObjectThatEndsEarlyIsDataLoss) {
  Open(SampleBytes(kChunk, 18));
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
    char byte = 0;
    EXPECT_EQ(CodeOf((*cache)->ReadAt(0, absl::MakeSpan(&byte, 1), {})),
              absl::StatusCode::kInternal);
    EXPECT_EQ((*cache)->CachedBytes(), 0u);
  }
}

TEST_F(ChunkCacheTest, WithoutRoomOnTheDiskReadsArePassedThrough) {
  File file = ReadOnlyMemory();
  const int fd = file.fd();
  Open(SampleBytes(4 * kChunk, 19), std::move(file));
  Seal(fd);
  ExpectRead(0, 3 * kChunk);
  ExpectRead(5, 10);
  EXPECT_EQ(cache_->CachedBytes(), 0u);
  EXPECT_GE(Passed("disk_full"), 2u);
  EXPECT_GE(Fetches("uncached"), 1u);
  const size_t tries = upstream_->fetches().size();
  ExpectRead(kChunk, 10);
  EXPECT_EQ(upstream_->fetches().size(), tries) << "the disk is given a moment";
  clock_.Advance(absl::Seconds(2));
  ExpectRead(kChunk, 10);
  EXPECT_GT(upstream_->fetches().size(), tries) << "and then tried again";
}

TEST_F(ChunkCacheTest, WhatCannotBeCachedStillFillsAroundWhatIs) {
  // A fetch may still run when this function has returned.
  const auto room = std::make_shared<std::atomic<bool>>(true);
  options_.admit = [room](uint64_t bytes) {
    EXPECT_LE(bytes, kChunk);
    return room->load();
  };
  Open(SampleBytes(3 * kChunk, 20));
  ExpectRead(kChunk, 10);
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
  Open(SampleBytes(kChunk, 25));
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
