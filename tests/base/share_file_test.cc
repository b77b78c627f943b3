#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "base/rename.h"
#include "base/sparse_file.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using test::SampleBytes;
using test::TempDir;

// A folder on another file system than /tmp, where there is one: links cannot reach it.
std::optional<std::string> OtherFileSystem(const TempDir& dir) {
  struct stat here = {};
  struct stat there = {};
  const char* const candidate = "/dev/shm";
  if (stat(dir.path().c_str(), &here) != 0 || stat(candidate, &there) != 0) return std::nullopt;
  if (here.st_dev == there.st_dev || access(candidate, W_OK) != 0) return std::nullopt;
  return candidate;
}

// A source file on another file system, removed at the end.
class ForeignFile {
 public:
  explicit ForeignFile(const std::string& folder) : path_(folder + "/peerchunk-test-XXXXXX") {
    file_ = File(mkstemp(path_.data()));
    EXPECT_TRUE(file_.is_open());
  }
  ~ForeignFile() { unlink(path_.c_str()); }
  ForeignFile(const ForeignFile&) = delete;
  ForeignFile& operator=(const ForeignFile&) = delete;

  const std::string& path() const { return path_; }
  const File& file() const { return file_; }

 private:
  std::string path_;
  File file_;
};

TEST(ShareFileTest, SharedFileHasTheBytes) {
  const TempDir dir;
  const std::string source = dir.Write("source", SampleBytes(100'000, 1));
  ASSERT_OK(dir.folder().MakeFolder("into"));
  const absl::StatusOr<Handover> handover = ShareFile(source, dir.folder(), "into/name");
  ASSERT_OK(handover);
  EXPECT_NE(*handover, Handover::kCopy) << "one file system needs no copy";
  ASSERT_EQ(unlink(source.c_str()), 0);
  EXPECT_EQ(dir.Read("into/name"), SampleBytes(100'000, 1));
  const absl::StatusOr<File> into = dir.folder().OpenAt("into", O_RDONLY | O_DIRECTORY);
  ASSERT_OK(into);
  EXPECT_EQ(*into->List(), std::vector<std::string>{"name"});
}

TEST(ShareFileTest, NameThatIsTakenIsKept) {
  const TempDir dir;
  const std::string source = dir.Write("source", "new");
  dir.Write("taken", "old");
  EXPECT_EQ(CodeOf(ShareFile(source, dir.folder(), "taken")), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(dir.Read("taken"), "old");
  EXPECT_EQ(*dir.folder().List(), (std::vector<std::string>{"source", "taken"}));
}

TEST(ShareFileTest, OnlyPlainFilesAreShared) {
  const TempDir dir;
  dir.Write("folder/file", "x");
  ASSERT_EQ(mkfifo(dir.PathOf("fifo").c_str(), 0600), 0);
  EXPECT_EQ(CodeOf(ShareFile(dir.PathOf("none"), dir.folder(), "a")), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(ShareFile(dir.PathOf("folder"), dir.folder(), "a")),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(ShareFile(dir.PathOf("fifo"), dir.folder(), "a")),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(ShareFile(dir.PathOf("folder/file"), dir.folder(), "none/a")),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(ShareFile(dir.PathOf("folder/file"), dir.folder(), "../a")),
            absl::StatusCode::kInvalidArgument);
}

// What is shared is the file behind a link, not the link.
TEST(ShareFileTest, LinkedSourceSharesItsFile) {
  const TempDir dir;
  dir.Write("file", "x");
  ASSERT_EQ(symlink("file", dir.PathOf("link").c_str()), 0);
  ASSERT_OK(ShareFile(dir.PathOf("link"), dir.folder(), "shared"));
  EXPECT_EQ(dir.Read("shared"), "x");
}

TEST(ShareFileTest, CopyAcrossFileSystemsKeepsHoles) {
  const TempDir dir;
  const std::optional<std::string> other = OtherFileSystem(dir);
  if (!other) GTEST_SKIP() << "there is one file system only";
  const ForeignFile source(*other);
  const std::string data = SampleBytes(3 * kMiB, 2);
  ASSERT_OK(source.file().WriteAt(8 * kMiB, data));
  ASSERT_OK(source.file().Truncate(32 * kMiB));
  const absl::StatusOr<Handover> handover = ShareFile(source.path(), dir.folder(), "copy");
  ASSERT_OK(handover);
  EXPECT_EQ(*handover, Handover::kCopy);
  std::string expected(32 * kMiB, '\0');
  expected.replace(8 * kMiB, data.size(), data);
  EXPECT_TRUE(dir.Read("copy") == expected);
  const absl::StatusOr<File> copy = dir.folder().OpenAt("copy", O_RDONLY);
  ASSERT_OK(copy);
  EXPECT_LT(*copy->AllocatedBytes(), 5 * kMiB);
  EXPECT_EQ(CodeOf(ShareFile(source.path(), dir.folder(), "copy")),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(*dir.folder().List(), std::vector<std::string>{"copy"});
}

TEST(SegmentAtTest, HolesAndDataTakeTurns) {
  const TempDir dir;
  const absl::StatusOr<File> file = dir.folder().OpenAt("a", O_RDWR | O_CREAT);
  ASSERT_OK(file);
  ASSERT_OK(file->WriteAt(kMiB, std::string(kMiB, 'x')));
  ASSERT_OK(file->Truncate(4 * kMiB));
  struct Expected {
    uint64_t at, limit, end;
    bool hole;
  };
  for (const Expected& expected :
       {Expected{0, 4 * kMiB, kMiB, true}, Expected{0, 1000, 1000, true},
        Expected{kMiB, 4 * kMiB, 2 * kMiB, false}, Expected{kMiB + 5, kMiB + 9, kMiB + 9, false},
        Expected{2 * kMiB, 4 * kMiB, 4 * kMiB, true}}) {
    const absl::StatusOr<FileSegment> segment = SegmentAt(*file, expected.at, expected.limit);
    ASSERT_OK(segment);
    EXPECT_EQ(segment->begin, expected.at);
    EXPECT_EQ(segment->end, expected.end);
    EXPECT_EQ(segment->hole, expected.hole);
  }
}

TEST(SegmentAtTest, PipeHasNoSegments) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const File reader(ends[0]);
  const File writer(ends[1]);
  EXPECT_FALSE(SegmentAt(reader, 0, 10).ok());
}

TEST(RenameNoReplaceTest, NameThatIsTakenIsKept) {
  const TempDir dir;
  dir.Write("a", "new");
  dir.Write("b", "old");
  const int fd = dir.folder().fd();
  EXPECT_EQ(CodeOf(RenameNoReplace(fd, "a", fd, "b")), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(dir.Read("b"), "old");
  EXPECT_EQ(CodeOf(RenameNoReplace(fd, "none", fd, "c")), absl::StatusCode::kNotFound);
  EXPECT_OK(RenameNoReplace(fd, "a", fd, "c"));
  EXPECT_EQ(dir.Read("c"), "new");
}

}  // namespace
}  // namespace peerchunk
