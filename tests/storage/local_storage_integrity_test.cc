#include <fcntl.h>
#include <sys/stat.h>

#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/status.h"
#include "tests/storage/local_storage_fixture.h"
#include "tests/support/sample_bytes.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using test::LocalStorageTest;
using test::SampleBytes;
using testing::HasSubstr;

class LocalCorruptionTest : public LocalStorageTest {
 protected:
  // Flips one byte of an object and keeps its version, as a failing disk does.
  void Corrupt(const std::string& path, uint64_t offset) {
    const absl::StatusOr<File> file = dir_.folder().OpenAt(path, O_RDWR);
    ASSERT_OK(file);
    struct stat info = {};
    ASSERT_EQ(fstat(file->fd(), &info), 0);
    char byte = 0;
    ASSERT_OK(file->ReadAt(offset, absl::Span<char>(&byte, 1)));
    byte = static_cast<char>(byte ^ 1);
    ASSERT_OK(file->WriteAt(offset, std::string_view(&byte, 1)));
    const timespec times[2] = {info.st_atim, info.st_mtim};
    ASSERT_EQ(futimens(file->fd(), times), 0);
  }
};

TEST_F(LocalCorruptionTest, WholeReadsFindAFlippedByte) {
  const auto storage = Open();
  const std::string bytes = SampleBytes(3 * kMiB, 1);
  ASSERT_OK((*storage->OpenBlob("a"))->Put(bytes, {}));
  Corrupt("a", 100);

  StringSink sink(kGiB);
  const absl::Status read = (*storage->OpenBlob("a"))->WriteTo(sink, {});
  EXPECT_EQ(read.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(read.message()), HasSubstr("read a in folder " + dir_.path()));
  EXPECT_LT(sink.bytes().size(), bytes.size()) << "no one holds a whole wrong object";

  const auto object = *storage->OpenSeekable("a");
  std::string out(bytes.size(), '\0');
  EXPECT_EQ(CodeOf(object->ReadAt(0, absl::MakeSpan(out), {})), absl::StatusCode::kDataLoss);
  const auto reader = *object->OpenRangeReader(0, UINT64_MAX, {});
  absl::StatusOr<std::optional<Extent>> extent = reader->Next();
  while (extent.ok() && *extent) extent = reader->Next();
  EXPECT_EQ(CodeOf(extent), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CodeOf(reader->Next()), absl::StatusCode::kDataLoss) << "an error stays";
}

TEST_F(LocalCorruptionTest, DamagedSidecarIsDataLossNotUnknown) {
  const auto storage = Open();
  ASSERT_OK((*storage->OpenBlob("a"))->Put("bytes", {}));
  const std::string sidecar = SidecarOf("a");
  dir_.Write(sidecar, "{");
  EXPECT_EQ(CodeOf(Read(*storage, "a")), absl::StatusCode::kDataLoss);
  dir_.Write(sidecar, R"({"size":4,"crc32c":1,"metadata":{}})");
  EXPECT_EQ(CodeOf((*storage->OpenBlob("a"))->Stat({})), absl::StatusCode::kDataLoss);
}

// Someone who writes into a file in place breaks the rules of the folder; it must show.
class LocalInPlaceWriteTest : public LocalStorageTest {
 protected:
  // Reads the file "a" as a blob; `change` happens to it after the first piece.
  std::pair<std::string, absl::Status> ReadWhile(
      StorageProvider& storage, const std::function<absl::Status(const File&)>& change) {
    class Sink final : public ByteSink {
     public:
      explicit Sink(std::function<absl::Status()> at_first) : at_first_(std::move(at_first)) {}
      absl::Status Write(std::string_view data) override {
        const bool first = bytes.empty();
        bytes += data;
        return first ? at_first_() : absl::OkStatus();
      }
      std::string bytes;

     private:
      const std::function<absl::Status()> at_first_;
    };
    Sink sink([&]() -> absl::Status {
      PEERCHUNK_ASSIGN_OR_RETURN(const File file, dir_.folder().OpenAt("a", O_RDWR));
      PEERCHUNK_RETURN_IF_ERROR(change(file));
      const timespec later[2] = {{1, 0}, {1, 0}};  // The kernel's own stamp ticks slowly.
      return futimens(file.fd(), later) == 0 ? absl::OkStatus() : absl::InternalError("futimens");
    });
    const absl::Status read = (*storage.OpenBlob("a"))->WriteTo(sink, {});
    return {std::move(sink.bytes), read};
  }
};

TEST_F(LocalInPlaceWriteTest, ShrunkFileFailsTheReadAndAddsNothing) {
  const auto storage = Open();
  const std::string bytes = SampleBytes(3 * kMiB, 2);
  dir_.Write("a", bytes);
  const auto [read, status] =
      ReadWhile(*storage, [](const File& file) { return file.Truncate(kMiB + 5); });
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(read == bytes.substr(0, kMiB));
}

TEST_F(LocalInPlaceWriteTest, OverwrittenFileFailsTheReadAtItsEnd) {
  const auto storage = Open();
  dir_.Write("a", SampleBytes(3 * kMiB, 2));
  const auto [read, status] =
      ReadWhile(*storage, [](const File& file) { return file.WriteAt(0, "changed"); });
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(read.size(), 2 * kMiB) << "the last piece was kept back";
}

TEST_F(LocalInPlaceWriteTest, ShrunkFileFailsARangeRead) {
  const auto storage = Open();
  const std::string bytes = SampleBytes(3 * kMiB, 2);
  dir_.Write("a", bytes);
  const auto reader = *(*storage->OpenSeekable("a"))->OpenRangeReader(0, UINT64_MAX, {});
  const absl::StatusOr<File> file = dir_.folder().OpenAt("a", O_RDWR);
  ASSERT_OK(file);
  ASSERT_OK(file->Truncate(kMiB + 5));
  std::string read;
  absl::StatusOr<std::optional<Extent>> extent = reader->Next();
  for (; extent.ok() && *extent; extent = reader->Next()) {
    read.resize(read.size() + (*extent)->length);
    (*extent)->CopyTo(read.data() + (*extent)->offset);
  }
  EXPECT_EQ(CodeOf(extent), absl::StatusCode::kAborted);
  EXPECT_TRUE(bytes.starts_with(read));
}

// An inode that was freed may be used again within one tick of the clock that the kernel stamps
// files with; versions made of such stamps would repeat.
TEST_F(LocalStorageTest, VersionsAreStampedFinerThanTheKernelDoes) {
  const auto storage = Open();
  const auto blob = *storage->OpenBlob("a");
  const auto coarse_now = [] {
    timespec now = {};
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return absl::TimeFromTimespec(now);
  };
  bool within_one_tick = false;
  for (int attempt = 0; attempt < 1000 && !within_one_tick; ++attempt) {
    const absl::Time before = coarse_now();
    ASSERT_OK(blob->Put("bytes", {}));
    within_one_tick = coarse_now() == before;
    struct stat info = {};
    ASSERT_EQ(stat(dir_.PathOf("a").c_str(), &info), 0);
    if (within_one_tick) {
      EXPECT_NE(absl::TimeFromTimespec(info.st_mtim), before);
    }
  }
  if (!within_one_tick) GTEST_SKIP() << "no write is fast enough here to share a tick";
}

}  // namespace
}  // namespace peerchunk
