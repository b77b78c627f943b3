#include "service/extent_source.h"

#include <random>
#include <string>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "tests/support/fake_build_file.h"

namespace peerchunk {
namespace {

using test::FakeBuildFile;

constexpr BuildFileId kFile{BuildId({1}), FileKind::kMemfile};

std::string Noise(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() | 1);
  return bytes;
}

struct Result {
  std::string bytes;
  uint64_t zero_bytes = 0;
  size_t extents = 0;
  absl::Status status;
};

ExtentSource SourceOf(std::shared_ptr<BuildFile> file, ByteRange range, bool present_only = false) {
  return ExtentSource(std::move(file), range, present_only, std::make_shared<BufferPool>(4 * kMiB));
}

// Reads the whole range as a peer would, checking what a peer checks.
Result ReadAll(ExtentSource& source, uint64_t offset) {
  auto budget = std::make_shared<ByteBudget>(ByteBudget::Options{.limit_bytes = 8 * kMiB});
  const auto account = budget->For("peer");
  Result result;
  uint64_t next = offset;
  while (!source.done()) {
    std::deque<OutgoingExtent> extents;
    auto lease = account->TryAcquire(Priority::kDemand, source.NextPieceBytes());
    if (!source.TryRead(*lease, {}, extents)) {
      EXPECT_TRUE(extents.empty());
      lease.reset();
      lease = account->TryAcquire(Priority::kDemand, source.NextWindowBytes());
      result.status = source.Read(*std::move(lease), {}, extents);
      lease.reset();
    }
    if (!result.status.ok()) break;
    for (const OutgoingExtent& extent : extents) {
      EXPECT_EQ(extent.offset, next);
      ++result.extents;
      if (extent.data) {
        const std::string_view data(reinterpret_cast<const char*>(extent.data->begin()),
                                    extent.data->size());
        EXPECT_LE(data.size(), kMaxDataRunBytes);
        EXPECT_EQ(Crc32c(data), extent.crc32c);
        result.bytes.append(data);
        next += data.size();
      } else {
        result.bytes.append(extent.zero_length, '\0');
        result.zero_bytes += extent.zero_length;
        next += extent.zero_length;
      }
    }
  }
  EXPECT_EQ(budget->in_use(), 0) << "a slice outlived its stream";
  return result;
}

TEST(ExtentSourceTest, AnyRangeOfAnyFileComesOutByteForByte) {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    std::string bytes = Noise(random() % (5 * kMiB), random());
    for (int holes = random() % 6; holes > 0 && !bytes.empty(); --holes) {
      const size_t at = random() % bytes.size();
      const size_t length = std::min<size_t>(random() % (2 * kMiB), bytes.size() - at);
      std::fill_n(bytes.begin() + at, length, '\0');
    }
    const uint64_t offset = random() % (bytes.size() + 1);
    const uint64_t length = random() % (bytes.size() - offset + 1);
    auto file = std::make_shared<FakeBuildFile>(kFile, bytes);
    file->in_memory = round % 2 == 0;
    ExtentSource source = SourceOf(file, {offset, length});
    const Result result = ReadAll(source, offset);
    ASSERT_TRUE(result.status.ok());
    ASSERT_EQ(result.bytes, bytes.substr(offset, length)) << "round " << round;
    EXPECT_EQ(source.next_offset(), offset + length);
  }
}

TEST(ExtentSourceTest, LongRunsOfZerosDoNotTravel) {
  std::string bytes = Noise(3 * kMiB, 1);
  std::fill_n(bytes.begin() + kMiB / 2, kMiB, '\0');
  ExtentSource source = SourceOf(std::make_shared<FakeBuildFile>(kFile, bytes), {0, bytes.size()});
  EXPECT_EQ(ReadAll(source, 0).zero_bytes, kMiB);
}

TEST(ExtentSourceTest, ShortRunsOfZerosTravelAsData) {
  std::string bytes = Noise(kMiB, 1);
  std::fill_n(bytes.begin() + kPageBytes, kMinZeroRunBytes - kPageBytes, '\0');
  ExtentSource source = SourceOf(std::make_shared<FakeBuildFile>(kFile, bytes), {0, bytes.size()});
  const Result result = ReadAll(source, 0);
  EXPECT_EQ(result.zero_bytes, 0);
  EXPECT_EQ(result.extents, kMiB / kMaxDataRunBytes);
}

TEST(ExtentSourceTest, RunsThatAreKnownAreSentAsTheyAre) {
  class Known final : public FakeBuildFile {
   public:
    using FakeBuildFile::FakeBuildFile;
    absl::StatusOr<std::vector<peerchunk::Run>> ReadRuns(uint64_t, absl::Span<char> out,
                                                         const ReadOptions&) override {
      out[0] = 'x';
      return std::vector<peerchunk::Run>{
          {.offset = 0, .length = 1, .zero = false, .crc32c = 4711},
          {.offset = 1, .length = out.size() - 1, .zero = true, .crc32c = 0}};
    }
  };
  ExtentSource source = SourceOf(std::make_shared<Known>(kFile, Noise(kMiB, 8)), {0, kMiB});
  std::deque<OutgoingExtent> extents;
  ASSERT_TRUE(source.Read({}, {}, extents).ok());
  ASSERT_EQ(extents.size(), 2u);
  EXPECT_EQ(extents[0].crc32c, 4711);
  EXPECT_EQ(extents[0].data->size(), 1u);
  EXPECT_EQ(extents[1].offset, 1u);
  EXPECT_EQ(extents[1].zero_length, kMiB - 1);
}

TEST(ExtentSourceTest, PageOfZerosAskedForAloneDoesNotTravel) {
  ExtentSource source = SourceOf(std::make_shared<FakeBuildFile>(kFile, std::string(kMiB, '\0')),
                                 {kPageBytes, kPageBytes});
  EXPECT_EQ(ReadAll(source, kPageBytes).zero_bytes, kPageBytes);
}

TEST(ExtentSourceTest, PresentOnlyStopsAtTheFirstMissingBlock) {
  const std::string bytes = Noise(3 * kMiB, 2);
  auto file = std::make_shared<FakeBuildFile>(kFile, bytes);
  file->present = kMiB + 3 * kPageBytes;
  ExtentSource source = SourceOf(file, {0, bytes.size()}, true);
  const Result result = ReadAll(source, 0);
  EXPECT_TRUE(result.status.ok());
  EXPECT_EQ(result.bytes, bytes.substr(0, file->present));
  EXPECT_TRUE(source.stopped_short());
  EXPECT_EQ(source.next_offset(), file->present);
}

TEST(ExtentSourceTest, WhatIsHereDoesNotWaitForWhatIsNot) {
  const std::string bytes = Noise(kMiB, 2);
  auto file = std::make_shared<FakeBuildFile>(kFile, bytes);
  file->present = 3 * kPageBytes;
  ExtentSource source = SourceOf(file, {0, bytes.size()});
  EXPECT_TRUE(source.NextIsHere());
  std::deque<OutgoingExtent> extents;
  ASSERT_TRUE(source.Read({}, {}, extents).ok());
  EXPECT_EQ(source.next_offset(), file->present);
  EXPECT_FALSE(source.NextIsHere());
  ASSERT_TRUE(source.Read({}, {}, extents).ok());
  EXPECT_TRUE(source.done());
}

TEST(BufferPoolTest, BuffersAreUsedAgainAndFewAreKept) {
  auto pool = std::make_shared<BufferPool>(BufferPool::kSmallBytes + BufferPool::kLargeBytes);
  const char* first = nullptr;
  {
    const BufferPool::Buffer one = pool->Take(BufferPool::kSmallBytes);
    const BufferPool::Buffer two = pool->Take(BufferPool::kSmallBytes - 1);
    const BufferPool::Buffer large = pool->Take(BufferPool::kSmallBytes + 1);
    const BufferPool::Buffer tiny = pool->Take(1);
    first = two.data();
    EXPECT_EQ(pool->idle_bytes(), 0);
  }
  EXPECT_EQ(pool->idle_bytes(), BufferPool::kSmallBytes + BufferPool::kLargeBytes);
  EXPECT_EQ(pool->Take(BufferPool::kSmallBytes).data(), first);
}

TEST(ExtentSourceTest, EmptyRangeIsDoneAtOnce) {
  ExtentSource source = SourceOf(std::make_shared<FakeBuildFile>(kFile, "abc"), {3, 0});
  EXPECT_TRUE(source.done());
  EXPECT_EQ(source.NextWindowBytes(), 0);
}

TEST(ExtentSourceTest, ReadErrorIsReturnedAndNothingEmitted) {
  auto file = std::make_shared<FakeBuildFile>(kFile, Noise(kMiB, 3));
  file->read_error = absl::DataLossError("flipped");
  ExtentSource source = SourceOf(file, {0, kMiB});
  const Result result = ReadAll(source, 0);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(result.extents, 0);
}

}  // namespace
}  // namespace peerchunk
