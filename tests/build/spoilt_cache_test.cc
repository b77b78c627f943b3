// A chunk cache whose file changes behind its back: a disk that flips a byte, a write-back that
// failed, so that a page that was dropped from memory rereads as a hole.
#include <fcntl.h>

#include <thread>

#include <gtest/gtest.h>

#include "tests/build/chunk_cache_fixture.h"

namespace peerchunk::test {
namespace {

class SpoiltCacheTest : public ChunkCacheTest {
 protected:
  // Brings all of `bytes`.
  void Fill(std::string bytes) {
    Open(std::move(bytes));
    ExpectRead(0, bytes_.size());
    ASSERT_EQ(cache_->CachedBytes(), bytes_.size());
  }
  void Write(uint64_t offset, std::string_view bytes) {
    ASSERT_OK(dir_.folder().OpenAt("cache", O_RDWR)->WriteAt(offset, bytes));
  }
  void Flip(uint64_t offset) {
    const char flipped = static_cast<char>(bytes_[offset] ^ 1);
    Write(offset, std::string_view(&flipped, 1));
  }
  void PunchHole(uint64_t offset, uint64_t length) {
    const File file = *dir_.folder().OpenAt("cache", O_RDWR);
    ASSERT_EQ(fallocate(file.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(offset), static_cast<off_t>(length)),
              0);
  }
  uint64_t Spoilt() const { return metrics_.CounterValue("peerchunk_spoilt_cache_pages_total"); }
  size_t AskedUpstream() const { return upstream_->fetches().size() + upstream_->passed().size(); }
  // All of it is right and is here.
  void ExpectWhole() {
    ExpectRead(0, bytes_.size());
    EXPECT_EQ(cache_->CachedBytes(), bytes_.size());
    const size_t asked = AskedUpstream();
    ExpectRead(0, bytes_.size());
    EXPECT_EQ(AskedUpstream(), asked);
  }
};

TEST_F(SpoiltCacheTest, AFlippedByteIsNotHandedOutAndIsFetchedAgain) {
  Fill(SampleBytes(4 * kChunk + 1234, 50));
  Flip(3 * kPage + 77);
  Flip(bytes_.size() - 1);
  ExpectRead(3 * kPage, kPage);
  EXPECT_EQ(cache_->PresentBytes(3 * kPage, kPage), 0u);
  EXPECT_EQ(cache_->PresentBytes(0, UINT64_MAX), 3 * kPage);
  EXPECT_EQ(Spoilt(), 1u);
  EXPECT_EQ(Passed("disk_error"), 1u);
  const uint64_t before = faults_->bytes_read();
  ExpectRead(3 * kPage, kPage);
  EXPECT_EQ(faults_->bytes_read(), before + kPage) << "the page, and no other";
  EXPECT_EQ(cache_->PresentBytes(3 * kPage, kPage), kPage);
  ExpectRead(bytes_.size() - 10, 3);
  EXPECT_EQ(Spoilt(), 2u) << "whichever part of the page is asked for";
  ExpectWhole();
  EXPECT_EQ(Spoilt(), 2u) << "each once";
}

TEST_F(SpoiltCacheTest, AHoleIsNotTakenForZeros) {
  Fill(SampleBytes(4 * kChunk, 51));
  PunchHole(kChunk, kChunk);
  ExpectRead(kChunk + 5, kChunk - 10);
  EXPECT_GE(Spoilt(), 1u);
  ExpectRead(0, bytes_.size());
  ExpectWhole();
  EXPECT_EQ(Spoilt(), kChunk / kPage);
}

TEST_F(SpoiltCacheTest, WhatIsWrittenIntoAHoleIsZerosAgain) {
  std::string bytes(4 * kChunk, '\0');
  bytes.replace(3 * kChunk, kChunk, SampleBytes(kChunk, 52));
  Fill(bytes);
  Write(kChunk + 3, "not zero");
  ExpectRead(kChunk, kPage);
  EXPECT_EQ(cache_->PresentBytes(kChunk, kPage), 0u);
  ExpectWhole();
  EXPECT_EQ(Spoilt(), 1u);
}

TEST_F(SpoiltCacheTest, RunsCarryTheChecksumsOfWhatCame) {
  std::string bytes = SampleBytes(6 * kChunk + 999, 53);
  bytes.replace(kChunk, kChunk, kChunk, '\0');
  Fill(bytes);
  Flip(7);
  PunchHole(2 * kChunk, kPage);
  const auto ranges = {ByteRange{0, 2 * kChunk}, ByteRange{kChunk, 3 * kChunk},
                       ByteRange{kPage, kPage}, ByteRange{100, 5000},
                       ByteRange{4 * kChunk, 2 * kChunk + 999}};
  for (int pass = 0; pass < 2; ++pass) {  // Mended in between.
    for (const ByteRange range : ranges) {
      const std::string_view want = std::string_view(bytes_).substr(range.offset, range.length);
      std::string got(range.length, '\0');
      const auto runs = cache_->ReadRuns(range.offset, absl::MakeSpan(got), {});
      ASSERT_OK(runs);
      EXPECT_EQ(*runs, CutIntoRuns(want));
      EXPECT_TRUE(got == want);
    }
    ExpectRead(0, bytes_.size());
  }
  EXPECT_EQ(Spoilt(), 2u);
}

TEST_F(SpoiltCacheTest, WhatIsReadAtOnceIsCheckedToo) {
  Fill(SampleBytes(kChunk, 54));
  std::string got(2 * kPage, '?');
  const auto ends = absl::MakeSpan(got);
  if (!cache_->TryReadAt(0, ends)) GTEST_SKIP() << "this file system is always waited for";
  const auto runs = cache_->TryReadRuns(0, kChunk, ends, {});
  EXPECT_EQ(runs, CutIntoRuns(std::string_view(bytes_).substr(0, 2 * kPage)));
  EXPECT_TRUE(got == bytes_.substr(0, 2 * kPage));
  Flip(kPage + 1);
  EXPECT_TRUE(cache_->TryReadRuns(0, kChunk, ends, {}).empty());
  EXPECT_EQ(cache_->TryReadRuns(0, kChunk, ends, {}).size(), 1u) << "the page before it";
  Flip(5 * kPage);
  EXPECT_FALSE(cache_->TryReadAt(5 * kPage + 100, ends.subspan(0, 8)));
  EXPECT_EQ(Spoilt(), 2u);
  ExpectWhole();
}

TEST_F(SpoiltCacheTest, WithoutRelaysASpoiltPageIsNotHeldHere) {
  Fill(SampleBytes(kChunk, 55));
  Flip(0);
  ReadOptions present_only;
  present_only.relays_left = 0;
  EXPECT_EQ(CodeOf(Read(0, kPage, present_only)), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf(Read(0, kPage, present_only)), absl::StatusCode::kUnavailable);
  ExpectRead(kPage, kPage, present_only);
  ExpectWhole();
}

// Its fetch has brought it and goes on with the rest; it will not come by that again.
TEST_F(SpoiltCacheTest, APageSpoiltWhileItsFetchIsUnderWayIsFetchedAgainAfterThat) {
  Open(SampleBytes(8 * kPage, 56));
  faults_->AddFault({.times = 1, .after_bytes = 4 * kPage, .stall = true});
  std::thread rest([&] { ExpectRead(0, 8 * kPage); });
  faults_->AwaitStalled(1);
  Flip(kPage);
  ExpectRead(kPage, kPage);
  EXPECT_EQ(Spoilt(), 1u);
  ReadOptions patient;
  patient.deadline = clock_.Now() + absl::Hours(1);
  std::thread again([&] { ExpectRead(kPage, kPage, patient); });
  clock_.AwaitWaiters(2);  // And what is stalled.
  faults_->ClearFaults();
  rest.join();
  again.join();
  ExpectWhole();
}

}  // namespace
}  // namespace peerchunk::test
