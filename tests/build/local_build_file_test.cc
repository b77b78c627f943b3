#include "peerchunk/build/local_build_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using test::SampleBytes;
using test::TempDir;

constexpr uint64_t kBlock = FileChecksums::kBlockBytes;
const BuildFileId kId{*BuildId::Parse("aaaaaaaa-0000-4000-8000-000000000001"), FileKind::kMemfile};

class LocalBuildFileTest : public testing::Test {
 protected:
  File OpenRaw(int flags = O_RDONLY) { return *dir_.folder().OpenAt("file", flags); }

  void Write(std::string bytes) {
    bytes_ = std::move(bytes);
    dir_.Write("file", bytes_);
  }

  std::shared_ptr<LocalBuildFile> Open() {
    auto sums = FileChecksums::Compute(OpenRaw());
    EXPECT_OK(sums);
    auto file = LocalBuildFile::Open(kId, OpenRaw(), std::make_shared<const FileChecksums>(*sums),
                                     [this](const absl::Status& status) {
                                       ++reports_;
                                       EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
                                     });
    EXPECT_OK(file);
    return *std::move(file);
  }

  void FlipByteAt(uint64_t offset) {
    const char flipped = static_cast<char>(bytes_[offset] ^ 1);
    ASSERT_OK(OpenRaw(O_RDWR).WriteAt(offset, std::string_view(&flipped, 1)));
  }

  absl::StatusOr<std::string> Read(LocalBuildFile& file, uint64_t offset, uint64_t length) {
    std::string out(length, '?');
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(offset, absl::MakeSpan(out), {}));
    out.resize(got);
    return out;
  }

  TempDir dir_;
  std::string bytes_;
  std::atomic<int> reports_ = 0;
};

TEST_F(LocalBuildFileTest, ChecksumsOfAnEmptyFile) {
  Write("");
  const auto sums = FileChecksums::Compute(OpenRaw());
  ASSERT_OK(sums);
  EXPECT_EQ(sums->size, 0u);
  EXPECT_EQ(sums->crc32c, 0u);
  EXPECT_TRUE(sums->block_crc32c.empty());
}

TEST_F(LocalBuildFileTest, ChecksumsOfASparseFileCountItsHolesAsZeros) {
  const uint64_t size = 5 * kBlock + 4321;
  std::string expected(size, '\0');
  const File file = OpenRaw(O_RDWR | O_CREAT);
  ASSERT_OK(file.Truncate(size));
  const std::string piece = SampleBytes(10'000, 1);
  for (const uint64_t at : {uint64_t{700'000}, 3 * kBlock - 5000}) {
    ASSERT_OK(file.WriteAt(at, piece));
    expected.replace(at, piece.size(), piece);
  }
  const auto sums = FileChecksums::Compute(file);
  ASSERT_OK(sums);
  EXPECT_EQ(sums->size, size);
  EXPECT_EQ(sums->crc32c, Crc32c(expected));
  ASSERT_EQ(sums->block_crc32c.size(), 6u);
  for (uint64_t block = 0; block < 6; ++block) {
    EXPECT_EQ(sums->block_crc32c[block],
              Crc32c(std::string_view(expected).substr(block * kBlock, kBlock)));
  }
}

TEST_F(LocalBuildFileTest, ReadsAnyRangeAndIsShortOnlyAtTheEnd) {
  Write(SampleBytes(2 * kBlock + 777, 2));
  const auto file = Open();
  EXPECT_EQ(file->size(), bytes_.size());
  EXPECT_EQ(file->crc32c(), Crc32c(bytes_));
  for (const auto& [offset, length] :
       std::vector<std::pair<uint64_t, uint64_t>>{{0, 1},
                                                  {kBlock - 1, 2},
                                                  {5, 2 * kBlock},
                                                  {0, bytes_.size()},
                                                  {bytes_.size() - 3, 100},
                                                  {bytes_.size(), 10},
                                                  {kBlock, kBlock},
                                                  {2 * kBlock, 777}}) {
    const auto got = Read(*file, offset, length);
    ASSERT_OK(got);
    EXPECT_EQ(*got, bytes_.substr(offset, length)) << offset << " +" << length;
  }
  EXPECT_EQ(CodeOf(Read(*file, bytes_.size() + 1, 1)), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(CodeOf(Read(*file, UINT64_MAX, 1)), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(file->PresentBytes(10, 100), 100u);
  EXPECT_EQ(file->PresentBytes(bytes_.size() - 4, 100), 4u);
  EXPECT_EQ(file->PresentBytes(bytes_.size(), 100), 0u);
  EXPECT_EQ(reports_, 0);
}

TEST_F(LocalBuildFileTest, AFlippedByteNeverReachesAReaderWhateverTheyRead) {
  for (const auto& [offset, length] : std::vector<std::pair<uint64_t, uint64_t>>{
           {kBlock + 100, 1}, {kBlock, kBlock}, {kBlock + 4096, 4096}, {0, 3 * kBlock}}) {
    reports_ = 0;
    Write(SampleBytes(3 * kBlock, 3));
    const auto file = Open();
    FlipByteAt(kBlock + 100);
    EXPECT_EQ(CodeOf(Read(*file, offset, length)), absl::StatusCode::kDataLoss);
    EXPECT_TRUE(file->corrupt());
    EXPECT_EQ(CodeOf(Read(*file, offset, length)), absl::StatusCode::kDataLoss) << "again";
    EXPECT_EQ(reports_, 1);
    EXPECT_EQ(*Read(*file, 0, kBlock), bytes_.substr(0, kBlock)) << "other blocks are good";
  }
}

TEST_F(LocalBuildFileTest, ABlockReadWholeIsCheckedEachTime) {
  Write(SampleBytes(kBlock, 4));
  const auto file = Open();
  EXPECT_OK(Read(*file, 0, kBlock));
  FlipByteAt(9);
  EXPECT_EQ(CodeOf(Read(*file, 0, kBlock)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CodeOf(Read(*file, 9, 1)), absl::StatusCode::kDataLoss) << "no longer believed";
}

TEST_F(LocalBuildFileTest, RunsAreFoundOnceAndAreThenLeftToTheReceiverToCheck) {
  std::string content = SampleBytes(2 * kBlock + 100, 11);
  std::fill_n(content.begin() + kBlock + 8192, 3 * kMinZeroRunBytes, '\0');
  Write(content);
  const auto file = Open();
  std::string out;
  const auto send = [&](uint64_t offset, uint64_t length) {
    out.assign(length, '?');
    auto runs = file->ReadRuns(offset, absl::MakeSpan(out), {});
    EXPECT_OK(runs);
    return *runs;
  };
  for (const auto& [offset, length] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0, kBlock}, {kBlock, kBlock}, {2 * kBlock, 100}, {1, kBlock}, {kBlock + 8192, 4096}}) {
    const std::vector<peerchunk::Run> expected =
        CutIntoRuns(std::string_view(bytes_).substr(offset, length));
    for (int pass = 0; pass < 2; ++pass) {
      EXPECT_EQ(send(offset, length), expected) << offset;
      for (const peerchunk::Run& run : expected) {
        if (run.zero) continue;
        EXPECT_EQ(out.substr(run.offset, run.length),
                  bytes_.substr(offset + run.offset, run.length));
      }
    }
  }
  // Spoilt after its check, a block does not pass the receiver's.
  FlipByteAt(5);
  const std::vector<peerchunk::Run> runs = send(0, kBlock);
  ASSERT_EQ(runs.size(), kBlock / kMaxDataRunBytes);
  EXPECT_EQ(runs[0].crc32c, Crc32c(bytes_.substr(0, kMaxDataRunBytes)));
  EXPECT_NE(Crc32c(out.substr(0, kMaxDataRunBytes)), runs[0].crc32c);
  // Once that is known here, it is not sent at all.
  EXPECT_EQ(CodeOf(Read(*file, 0, kBlock)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CodeOf(file->ReadRuns(0, absl::MakeSpan(out), {})), absl::StatusCode::kDataLoss);
}

// A byte flips in a page that was read and in its neighbour: nobody is told that these are the
// bytes.
TEST_F(LocalBuildFileTest, APageThatChangesAfterItsFirstCheckIsFoundByWhoeverReadsIt) {
  Write(SampleBytes(2 * kBlock + 5000, 13));
  for (const uint64_t page : {uint64_t{0}, kBlock + 4096, 2 * kBlock + 4096}) {
    const auto file = Open();
    ASSERT_OK(Read(*file, page, 4096));
    FlipByteAt(page + 17);
    if (page >= 4096) FlipByteAt(page - 4096 + 5);
    std::string out(std::min<uint64_t>(4096, bytes_.size() - page), '?');
    const std::string was = bytes_.substr(page, out.size());
    const auto sent = file->ReadRuns(page, absl::MakeSpan(out), {});
    ASSERT_OK(sent);
    ASSERT_EQ(sent->size(), 1u);
    EXPECT_EQ(sent->front().crc32c, Crc32c(was));
    EXPECT_NE(sent->front().crc32c, Crc32c(out));
    EXPECT_EQ(reports_, 0);
    EXPECT_FALSE(file->TryReadAt(page, absl::MakeSpan(out)));
    EXPECT_EQ(CodeOf(Read(*file, page, out.size())), absl::StatusCode::kDataLoss);
    EXPECT_EQ(CodeOf(Read(*file, page + 100, 1)), absl::StatusCode::kDataLoss);
    EXPECT_EQ(reports_, 1);
    // What was found here is not left to receivers any more.
    EXPECT_EQ(CodeOf(file->ReadRuns(page, absl::MakeSpan(out), {})), absl::StatusCode::kDataLoss);
    EXPECT_TRUE(file->TryReadRuns(page, out.size(), absl::MakeSpan(out), {}).empty());
    reports_ = 0;
    Write(bytes_);
  }
}

TEST_F(LocalBuildFileTest, AnyRunsThatAreInMemoryAreThoseOfTheBytes) {
  std::string content = SampleBytes(2 * kBlock + 5000, 14);
  std::fill_n(content.begin() + 8192, 3 * kMinZeroRunBytes, '\0');
  std::fill_n(content.begin() + kBlock - 40960, 2 * kMinZeroRunBytes, '\0');
  Write(content);
  const auto file = Open();
  std::string out(kMaxDataRunBytes, '?');
  EXPECT_TRUE(file->TryReadRuns(0, kBlock, absl::MakeSpan(out), {}).empty()) << "not checked yet";
  ASSERT_OK(Read(*file, 0, bytes_.size()));
  for (const uint64_t begin : {uint64_t{0}, uint64_t{4096}, uint64_t{77}, kBlock - 20480}) {
    uint64_t at = begin;
    while (at < bytes_.size()) {
      const auto runs = file->TryReadRuns(at, kBlock, absl::MakeSpan(out), {});
      ASSERT_FALSE(runs.empty()) << at;
      uint64_t packed = 0;
      for (const peerchunk::Run& run : runs) {
        const std::string expected = bytes_.substr(at + run.offset, run.length);
        if (run.zero) {
          ASSERT_TRUE(IsAllZero(expected));
          continue;
        }
        ASSERT_TRUE(std::string_view(out).substr(packed, run.length) == expected);
        ASSERT_EQ(run.crc32c, Crc32c(expected));
        packed += run.length;
      }
      at += runs.back().offset + runs.back().length;
    }
    EXPECT_EQ(at, bytes_.size());
  }
  EXPECT_TRUE(file->TryReadRuns(bytes_.size(), 1, absl::MakeSpan(out), {}).empty());
}

// Such file systems refuse to say what is in memory: all is.
TEST_F(LocalBuildFileTest, AFileInMemoryIsReadAtOnce) {
  const File writer(memfd_create("file", 0));
  bytes_ = SampleBytes(2 * kBlock, 15);
  ASSERT_OK(writer.WriteAt(0, bytes_));
  const auto sums = std::make_shared<const FileChecksums>(*FileChecksums::Compute(writer));
  const auto file = *LocalBuildFile::Open(kId, File(dup(writer.fd())), sums, {});
  std::string out(8192, '?');
  EXPECT_FALSE(file->TryReadAt(4096, absl::MakeSpan(out))) << "not checked yet";
  ASSERT_OK(Read(*file, 0, bytes_.size()));
  EXPECT_TRUE(file->TryReadAt(4096, absl::MakeSpan(out)));
  EXPECT_EQ(out, bytes_.substr(4096, 8192));
  EXPECT_EQ(file->TryReadRuns(4096, 8192, absl::MakeSpan(out), {}).size(), 1u);
  // Cut short under the reader: an error, and no signal.
  ASSERT_OK(writer.Truncate(100));
  EXPECT_FALSE(file->TryReadAt(4096, absl::MakeSpan(out)));
  EXPECT_EQ(CodeOf(Read(*file, 4096, 8192)), absl::StatusCode::kDataLoss);
}

TEST_F(LocalBuildFileTest, NothingIsSentOfABlockThatFailsItsFirstCheck) {
  Write(SampleBytes(kBlock, 12));
  const auto file = Open();
  FlipByteAt(7);
  std::string out(kBlock, '?');
  EXPECT_EQ(CodeOf(file->ReadRuns(0, absl::MakeSpan(out), {})), absl::StatusCode::kDataLoss);
  EXPECT_EQ(reports_, 1);
}

TEST_F(LocalBuildFileTest, AFileThatShrankIsDataLoss) {
  Write(SampleBytes(2 * kBlock, 5));
  const auto file = Open();
  EXPECT_OK(Read(*file, kBlock + 1, 1));
  std::string out(kBlock, '?');
  ASSERT_OK(OpenRaw(O_RDWR).Truncate(kBlock + 10));
  EXPECT_EQ(CodeOf(file->ReadRuns(kBlock, absl::MakeSpan(out), {})), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CodeOf(Read(*file, 2 * kBlock - 10, 5)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(reports_, 1);
}

TEST_F(LocalBuildFileTest, OpenOfAFileOfAnotherSizeIsDataLossAndTold) {
  Write("four");
  auto sums = std::make_shared<FileChecksums>(*FileChecksums::Compute(OpenRaw()));
  Write("fives");
  int reports = 0;
  EXPECT_EQ(
      CodeOf(LocalBuildFile::Open(kId, OpenRaw(), sums, [&](const absl::Status&) { ++reports; })),
      absl::StatusCode::kDataLoss);
  EXPECT_EQ(reports, 1);
  EXPECT_EQ(CodeOf(LocalBuildFile::Open(kId, OpenRaw(), sums, {})), absl::StatusCode::kDataLoss);
}

TEST_F(LocalBuildFileTest, OpenWithoutAllBlockChecksumsIsRefused) {
  Write("four");
  auto sums = std::make_shared<FileChecksums>(*FileChecksums::Compute(OpenRaw()));
  sums->block_crc32c.clear();
  EXPECT_EQ(CodeOf(LocalBuildFile::Open(kId, OpenRaw(), sums, {})),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(LocalBuildFile::Open(kId, OpenRaw(), nullptr, {})),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(LocalBuildFileTest, ACancelledReadEnds) {
  Write(SampleBytes(100, 6));
  const auto file = Open();
  std::stop_source stop;
  stop.request_stop();
  ReadOptions options;
  options.cancellation = stop.get_token();
  char byte = 0;
  EXPECT_EQ(CodeOf(file->ReadAt(0, absl::MakeSpan(&byte, 1), options)),
            absl::StatusCode::kCancelled);
}

TEST_F(LocalBuildFileTest, ManyReadersShareOneFile) {
  Write(SampleBytes(3 * kBlock + 5, 7));
  const auto file = Open();
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&, i] {
      for (uint64_t at = static_cast<uint64_t>(i) * 1000; at < bytes_.size(); at += 300'001) {
        EXPECT_EQ(*Read(*file, at, 5000), bytes_.substr(at, 5000));
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(reports_, 0);
}

}  // namespace
}  // namespace peerchunk
