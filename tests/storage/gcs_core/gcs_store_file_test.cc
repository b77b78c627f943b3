#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file.h"
#include "storage/gcs_core/upload_source.h"
#include "tests/storage/gcs_core/gcs_write_fixture.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;
using Kind = GcsFault::Kind;

class GcsFileTest : public GcsWriteTest {
 protected:
  absl::StatusOr<ObjectStat> Store(const WriteOptions& options = CreateOnly()) {
    return gcs_.Open("a/object")->StoreFile(files_.PathOf("file"), options);
  }
  // Flips one byte and, unless told otherwise, sets the times back.
  void ChangeFile(uint64_t offset, bool hide) {
    struct stat before;
    ASSERT_EQ(::stat(files_.PathOf("file").c_str(), &before), 0);
    const absl::StatusOr<File> file = files_.folder().OpenAt("file", O_RDWR);
    ASSERT_OK(file);
    char byte = 0;
    ASSERT_OK(file->ReadAt(offset, absl::MakeSpan(&byte, 1)));
    byte = static_cast<char>(byte ^ 1);
    ASSERT_OK(file->WriteAt(offset, std::string_view(&byte, 1)));
    const timespec times[2] = {before.st_atim, hide ? before.st_mtim : timespec{1, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, files_.PathOf("file").c_str(), times, 0), 0);
  }

  const TempDir files_;
};

TEST_F(GcsFileTest, FileIsStoredWhicheverWay) {
  for (const std::string& bytes : {std::string(), small_, medium_, large_}) {
    files_.Write("file", bytes);
    WriteOptions options = CreateOnly();
    options.crc32c = Crc32c(bytes);
    ExpectStored(Store(options), bytes);
    gcs_.fake->Erase("base/a/object");
  }
}

TEST_F(GcsFileTest, WrongPromiseStoresNothing) {
  for (const std::string& bytes : {small_, medium_, large_}) {
    files_.Write("file", bytes);
    WriteOptions options = CreateOnly();
    options.crc32c = Crc32c(bytes) ^ 1;
    EXPECT_EQ(CodeOf(Store(options)), Code::kDataLoss);
    ExpectNothingStored();
    EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
  }
}

TEST_F(GcsFileTest, FileWrittenToFailsTheUpload) {
  for (const std::string& bytes : {medium_, large_}) {
    files_.Write("file", bytes);
    bool changed = false;
    gcs_.while_stalled = [&] {
      if (!std::exchange(changed, true)) ChangeFile(100, /*hide=*/false);
    };
    gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
    EXPECT_EQ(CodeOf(Store()), Code::kDataLoss);
    ExpectNothingStored();
    EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
  }
}

// Also where the file's times say nothing: the bytes that are sent again are not those sent before.
TEST_F(GcsFileTest, FileChangedBehindItsTimesFailsTheUpload) {
  files_.Write("file", medium_);
  bool changed = false;
  gcs_.while_stalled = [&] {
    if (!std::exchange(changed, true)) ChangeFile(100, /*hide=*/true);
  };
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kSessionGone);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
  gcs_.Inject(GcsRpc::kQueryWriteStatus, Kind::kError, Code::kNotFound);
  EXPECT_EQ(CodeOf(Store()), Code::kDataLoss);
  ExpectNothingStored();
}

// A refused checksum is not tried again where the file turns out to be another one by now.
TEST_F(GcsFileTest, RefusedBytesAreComparedWithTheFileFirst) {
  for (const std::string& bytes : {small_, medium_}) {
    files_.Write("file", bytes);
    bool changed = false;
    gcs_.while_stalled = [&] {
      if (!std::exchange(changed, true)) ChangeFile(100, /*hide=*/true);
    };
    const bool session = bytes == medium_;
    gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, session ? 1 : 0);
    // The service finds the one-shot write's mismatch itself.
    if (session) gcs_.Inject(GcsRpc::kWriteObject, Kind::kGarbledUpload);
    const size_t starts = gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite);
    const size_t writes = gcs_.fake->CallsOf(GcsRpc::kWriteObject);
    const absl::Status status = Store().status();
    EXPECT_EQ(status.code(), Code::kDataLoss);
    EXPECT_NE(status.message().find("changed while it was sent"), std::string::npos) << status;
    EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite) - starts, session ? 1u : 0u);
    EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kWriteObject) - writes, 2u);
    ExpectNothingStored();
  }
}

TEST_F(GcsFileTest, HashingAFileEndsWithItsCaller) {
  const auto source = MemorySource(medium_);
  std::string buffer;
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(CodeOf(HashSource(*source, 0, medium_.size(), buffer, gcs_.clock,
                              {absl::InfiniteFuture(), stop.get_token()})),
            Code::kCancelled);
  EXPECT_EQ(
      CodeOf(HashSource(*source, 0, medium_.size(), buffer, gcs_.clock, {gcs_.clock.Now(), {}})),
      Code::kDeadlineExceeded);
}

TEST_F(GcsFileTest, FileThatShrinksFailsTheUpload) {
  files_.Write("file", medium_);
  gcs_.while_stalled = [&] {
    const absl::StatusOr<File> file = files_.folder().OpenAt("file", O_RDWR);
    ASSERT_OK(file);
    ASSERT_OK(file->Truncate(kMiB));
  };
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 0);
  EXPECT_EQ(CodeOf(Store()), Code::kDataLoss);
  ExpectNothingStored();
}

TEST_F(GcsFileTest, NewHardLinkIsNoChange) {
  files_.Write("file", medium_);
  bool linked = false;
  gcs_.while_stalled = [&] {
    if (std::exchange(linked, true)) return;
    EXPECT_EQ(::link(files_.PathOf("file").c_str(), files_.PathOf("link").c_str()), 0);
  };
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
  ExpectStored(Store(), medium_);
}

}  // namespace
}  // namespace peerchunk::test
