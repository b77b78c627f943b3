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

// Reads the whole range as a peer would, checking what a peer checks.
Result ReadAll(ExtentSource& source, uint64_t offset) {
  auto budget = std::make_shared<ByteBudget>(8 * kMiB);
  Result result;
  uint64_t next = offset;
  while (!source.done()) {
    ByteBudget::Lease lease;
    budget->Acquire(source.NextWindowBytes(), [&](ByteBudget::Lease l) { lease = std::move(l); });
    std::deque<OutgoingExtent> extents;
    result.status = source.Read(std::move(lease), {}, extents);
    if (!result.status.ok()) break;
    for (const OutgoingExtent& extent : extents) {
      EXPECT_EQ(extent.offset, next);
      ++result.extents;
      if (extent.data) {
        const std::string_view data(reinterpret_cast<const char*>(extent.data->begin()),
                                    extent.data->size());
        EXPECT_LE(data.size(), ExtentSource::kWindowBytes);
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
    ExtentSource source(std::make_shared<FakeBuildFile>(kFile, bytes), {offset, length}, false);
    const Result result = ReadAll(source, offset);
    ASSERT_TRUE(result.status.ok());
    ASSERT_EQ(result.bytes, bytes.substr(offset, length)) << "round " << round;
    EXPECT_EQ(source.next_offset(), offset + length);
  }
}

TEST(ExtentSourceTest, LongRunsOfZerosDoNotTravel) {
  std::string bytes = Noise(3 * kMiB, 1);
  std::fill_n(bytes.begin() + kMiB / 2, kMiB, '\0');
  ExtentSource source(std::make_shared<FakeBuildFile>(kFile, bytes), {0, bytes.size()}, false);
  EXPECT_EQ(ReadAll(source, 0).zero_bytes, kMiB);
}

TEST(ExtentSourceTest, ShortRunsOfZerosTravelAsData) {
  std::string bytes = Noise(kMiB, 1);
  std::fill_n(bytes.begin() + kPageBytes, kMinZeroRunBytes - kPageBytes, '\0');
  ExtentSource source(std::make_shared<FakeBuildFile>(kFile, bytes), {0, bytes.size()}, false);
  const Result result = ReadAll(source, 0);
  EXPECT_EQ(result.zero_bytes, 0);
  EXPECT_EQ(result.extents, 1);
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
  ExtentSource source(std::make_shared<Known>(kFile, Noise(kMiB, 8)), {0, kMiB}, false);
  std::deque<OutgoingExtent> extents;
  ASSERT_TRUE(source.Read({}, {}, extents).ok());
  ASSERT_EQ(extents.size(), 2u);
  EXPECT_EQ(extents[0].crc32c, 4711);
  EXPECT_EQ(extents[0].data->size(), 1u);
  EXPECT_EQ(extents[1].offset, 1u);
  EXPECT_EQ(extents[1].zero_length, kMiB - 1);
}

TEST(ExtentSourceTest, PageOfZerosAskedForAloneDoesNotTravel) {
  ExtentSource source(std::make_shared<FakeBuildFile>(kFile, std::string(kMiB, '\0')),
                      {kPageBytes, kPageBytes}, false);
  EXPECT_EQ(ReadAll(source, kPageBytes).zero_bytes, kPageBytes);
}

TEST(ExtentSourceTest, PresentOnlyStopsAtTheFirstMissingBlock) {
  const std::string bytes = Noise(3 * kMiB, 2);
  auto file = std::make_shared<FakeBuildFile>(kFile, bytes);
  file->present = kMiB + 3 * kPageBytes;
  ExtentSource source(file, {0, bytes.size()}, true);
  const Result result = ReadAll(source, 0);
  EXPECT_TRUE(result.status.ok());
  EXPECT_EQ(result.bytes, bytes.substr(0, file->present));
  EXPECT_TRUE(source.stopped_short());
  EXPECT_EQ(source.next_offset(), file->present);
}

TEST(ExtentSourceTest, EmptyRangeIsDoneAtOnce) {
  ExtentSource source(std::make_shared<FakeBuildFile>(kFile, "abc"), {3, 0}, false);
  EXPECT_TRUE(source.done());
  EXPECT_EQ(source.NextWindowBytes(), 0);
}

TEST(ExtentSourceTest, ReadErrorIsReturnedAndNothingEmitted) {
  auto file = std::make_shared<FakeBuildFile>(kFile, Noise(kMiB, 3));
  file->read_error = absl::DataLossError("flipped");
  ExtentSource source(file, {0, kMiB}, false);
  const Result result = ReadAll(source, 0);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(result.extents, 0);
}

}  // namespace
}  // namespace peerchunk
