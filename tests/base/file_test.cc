#include "peerchunk/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/range.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using test::SampleBytes;
using test::TempDir;

std::string ReadWhole(const File& file, size_t limit = 1 << 20) {
  std::string out(limit, '\0');
  const absl::StatusOr<size_t> read = file.ReadAt(0, absl::MakeSpan(out));
  EXPECT_OK(read);
  out.resize(read.value_or(0));
  return out;
}

TEST(FileTest, MovedFromFileIsClosedOnce) {
  const TempDir dir;
  absl::StatusOr<File> first = dir.folder().OpenAt("a", O_RDWR | O_CREAT);
  ASSERT_OK(first);
  const int fd = first->fd();
  File second = *std::move(first);
  EXPECT_EQ(second.fd(), fd);
  EXPECT_FALSE(first->is_open());
  absl::StatusOr<File> other = dir.folder().OpenAt("b", O_RDWR | O_CREAT);
  ASSERT_OK(other);
  second = *std::move(other);
  EXPECT_EQ(fcntl(fd, F_GETFD), -1) << "what was held before is closed";
  File& alias = second;
  second = std::move(alias);
  EXPECT_TRUE(second.is_open());
}

TEST(FileTest, OpenedFilesDoNotPassToPrograms) {
  const TempDir dir;
  const absl::StatusOr<File> file = dir.folder().OpenAt("a", O_RDWR | O_CREAT);
  ASSERT_OK(file);
  EXPECT_NE(fcntl(file->fd(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_NE(fcntl(dir.folder().fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(FileTest, OpenOfMissingIsNotFound) {
  const TempDir dir;
  EXPECT_EQ(CodeOf(File::Open(dir.PathOf("none"), O_RDONLY)), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(dir.folder().OpenAt("none", O_RDONLY)), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(dir.folder().OpenAt("none/x", O_RDONLY)), absl::StatusCode::kNotFound);
}

TEST(FileTest, NamesStayInsideTheFolder) {
  const TempDir dir;
  dir.Write("inside/file", "x");
  dir.Write("secret", "y");
  const absl::StatusOr<File> inside = dir.folder().OpenAt("inside", O_RDONLY | O_DIRECTORY);
  ASSERT_OK(inside);
  for (const std::string_view name : {"../secret", "..", "a/../../secret", "/etc/passwd", ""}) {
    EXPECT_EQ(CodeOf(inside->OpenAt(name, O_RDONLY)), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(CodeOf(inside->Remove(name)), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(CodeOf(inside->RemoveTree(name)), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(CodeOf(inside->MakeFolder(name)), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(CodeOf(inside->Contains(name)), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(CodeOf(inside->ReplaceFile(name, "z")), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(CodeOf(inside->ReadSmallFile(name, 9)), absl::StatusCode::kInvalidArgument) << name;
  }
  EXPECT_EQ(CodeOf(inside->OpenAt(std::string_view("file\0x", 6), O_RDONLY)),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(inside->Remove("file/")), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(dir.Read("secret"), "y");
}

TEST(FileTest, SymbolicLinksAreNotFollowed) {
  const TempDir dir;
  dir.Write("target/file", "x");
  ASSERT_EQ(symlink("target", dir.PathOf("link").c_str()), 0);
  ASSERT_EQ(symlink("/etc/passwd", dir.PathOf("passwd").c_str()), 0);
  EXPECT_EQ(CodeOf(dir.folder().OpenAt("link/file", O_RDONLY)),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf(dir.folder().OpenAt("passwd", O_RDONLY)), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf(dir.folder().Remove("link/file")), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf(dir.folder().RemoveTree("link/file")), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf(dir.folder().Contains("link/file")), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf(dir.folder().MakeFolder("link/new")), absl::StatusCode::kPermissionDenied);
  // The link itself is an entry like any other.
  EXPECT_OK(dir.folder().RemoveTree("link"));
  EXPECT_EQ(dir.Read("target/file"), "x");
}

TEST(FileTest, ReadIsShortOnlyAtTheEnd) {
  const TempDir dir;
  const absl::StatusOr<File> file = File::Open(dir.Write("a", "0123456789"), O_RDONLY);
  ASSERT_OK(file);
  std::string out(20, '\0');
  EXPECT_EQ(*file->ReadAt(0, absl::MakeSpan(out)), 10u);
  EXPECT_EQ(*file->ReadAt(7, absl::MakeSpan(out)), 3u);
  EXPECT_EQ(out.substr(0, 3), "789");
  EXPECT_EQ(*file->ReadAt(10, absl::MakeSpan(out)), 0u);
  EXPECT_EQ(*file->ReadAt(1 << 20, absl::MakeSpan(out)), 0u);
  EXPECT_EQ(CodeOf(file->ReadAt(UINT64_MAX, absl::MakeSpan(out))),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(file->ReadAt(INT64_MAX, absl::MakeSpan(out))),
            absl::StatusCode::kInvalidArgument);
}

TEST(FileTest, VectorWritesManyPieces) {
  const TempDir dir;
  const absl::StatusOr<File> file = dir.folder().OpenAt("a", O_RDWR | O_CREAT);
  ASSERT_OK(file);
  const std::string bytes = SampleBytes(50'000, 1);
  std::vector<std::string_view> pieces;
  for (size_t offset = 0, size = 0; offset < bytes.size(); offset += size) {
    size = std::min<size_t>(pieces.size() % 500, bytes.size() - offset);  // Some are empty.
    pieces.push_back(std::string_view(bytes).substr(offset, size));
    if (size == 0) pieces.push_back({});
  }
  ASSERT_GT(pieces.size(), 64u);
  ASSERT_OK(file->WriteVectorAt(5, pieces));
  EXPECT_EQ(ReadWhole(*file).substr(5), bytes);
  EXPECT_OK(file->WriteVectorAt(5, {}));
  EXPECT_OK(file->WriteAt(0, ""));
  EXPECT_EQ(CodeOf(file->WriteAt(UINT64_MAX, "x")), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(file->WriteAt(INT64_MAX, "x")), absl::StatusCode::kInvalidArgument);
}

TEST(FileTest, FailedWriteSaysWhy) {
  const TempDir dir;
  const absl::StatusOr<File> full = File::Open("/dev/full", O_WRONLY);
  ASSERT_OK(full);
  EXPECT_EQ(CodeOf(full->WriteAt(0, "x")), absl::StatusCode::kResourceExhausted);
  const absl::StatusOr<File> read_only = File::Open(dir.Write("a", "x"), O_RDONLY);
  ASSERT_OK(read_only);
  EXPECT_FALSE(read_only->WriteAt(0, "x").ok());
  EXPECT_FALSE(read_only->Truncate(5).ok());
}

TEST(FileTest, SparseFileTakesLessThanItsSize) {
  const TempDir dir;
  const absl::StatusOr<File> file = dir.folder().OpenAt("a", O_RDWR | O_CREAT);
  ASSERT_OK(file);
  ASSERT_OK(file->Truncate(64 * kMiB));
  ASSERT_OK(file->WriteAt(kMiB, "data"));
  ASSERT_OK(file->Sync());
  EXPECT_EQ(*file->Size(), 64 * kMiB);
  EXPECT_GT(*file->AllocatedBytes(), 0u);
  EXPECT_LT(*file->AllocatedBytes(), kMiB);
  EXPECT_EQ(CodeOf(file->Truncate(UINT64_MAX)), absl::StatusCode::kInvalidArgument);
}

TEST(FileTest, MakeFolderMakesParentsAndKeepsWhatIsThere) {
  const TempDir dir;
  EXPECT_OK(dir.folder().MakeFolder("a/b/c"));
  dir.Write("a/b/c/file", "x");
  EXPECT_OK(dir.folder().MakeFolder("a/b/c"));
  EXPECT_OK(dir.folder().MakeFolder("."));
  EXPECT_OK(dir.folder().MakeFolder("a//b/./c/"));
  EXPECT_EQ(dir.Read("a/b/c/file"), "x");
  EXPECT_EQ(CodeOf(dir.folder().MakeFolder("a/b/c/file")), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(dir.folder().MakeFolder("a/b/c/file/d")), absl::StatusCode::kFailedPrecondition);
}

TEST(FileTest, RemoveTakesFilesOnly) {
  const TempDir dir;
  dir.Write("a/file", "x");
  EXPECT_EQ(CodeOf(dir.folder().Remove("none")), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(dir.folder().Remove("none/file")), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(dir.folder().Remove("a")), absl::StatusCode::kFailedPrecondition);
  EXPECT_OK(dir.folder().Remove("a/file"));
  EXPECT_FALSE(*dir.folder().Contains("a/file"));
}

TEST(FileTest, RemoveTreeTakesAllAndOnlyThat) {
  const TempDir dir;
  dir.Write("a/b/c/file", "x");
  dir.Write("a/file", "x");
  dir.Write("kept/file", "y");
  ASSERT_EQ(symlink("../kept", dir.PathOf("a/link").c_str()), 0);
  EXPECT_OK(dir.folder().RemoveTree("a"));
  EXPECT_FALSE(*dir.folder().Contains("a"));
  EXPECT_EQ(dir.Read("kept/file"), "y");
  EXPECT_OK(dir.folder().RemoveTree("a"));
  EXPECT_OK(dir.folder().RemoveTree("a/b"));
  EXPECT_OK(dir.folder().RemoveTree("kept/file"));
  EXPECT_TRUE(*dir.folder().Contains("kept"));
}

TEST(FileTest, ListIsSortedAndRepeatable) {
  const TempDir dir;
  for (const std::string_view name : {"b", "a", ".hidden", "c/x"}) dir.Write(name, "x");
  for (int i = 0; i < 2; ++i) {
    const absl::StatusOr<std::vector<std::string>> names = dir.folder().List();
    ASSERT_OK(names);
    EXPECT_EQ(*names, (std::vector<std::string>{".hidden", "a", "b", "c"}));
  }
  const absl::StatusOr<File> file = dir.folder().OpenAt("a", O_RDONLY);
  ASSERT_OK(file);
  EXPECT_EQ(CodeOf(file->List()), absl::StatusCode::kFailedPrecondition);
}

TEST(FileTest, SmallFileIsReadUpToTheLimit) {
  const TempDir dir;
  dir.Write("a", "12345");
  EXPECT_EQ(*dir.folder().ReadSmallFile("a", 5), "12345");
  EXPECT_EQ(CodeOf(dir.folder().ReadSmallFile("a", 4)), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CodeOf(dir.folder().ReadSmallFile("b", 4)), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(dir.folder().ReadSmallFile(".", 4)), absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(mkfifo(dir.PathOf("fifo").c_str(), 0600), 0);
  EXPECT_EQ(CodeOf(dir.folder().ReadSmallFile("fifo", 4)), absl::StatusCode::kFailedPrecondition);
}

TEST(FileTest, ReplacedFileIsOldOrNewToItsReaders) {
  const TempDir dir;
  const std::string versions[] = {std::string(20'000, 'a'), std::string(30'000, 'b')};
  ASSERT_OK(dir.folder().ReplaceFile("f", versions[0]));
  std::thread writer([&] {
    for (int i = 1; i < 20; ++i) EXPECT_OK(dir.folder().ReplaceFile("f", versions[i % 2]));
  });
  for (int i = 0; i < 200; ++i) {
    const absl::StatusOr<std::string> read = dir.folder().ReadSmallFile("f", kMiB);
    ASSERT_OK(read);
    EXPECT_TRUE(*read == versions[0] || *read == versions[1]);
  }
  writer.join();
  EXPECT_EQ(*dir.folder().List(), std::vector<std::string>{"f"}) << "nothing is left over";
}

TEST(FileTest, ReplaceThatFailsLeavesNothing) {
  const TempDir dir;
  dir.Write("folder/file", "x");
  EXPECT_FALSE(dir.folder().ReplaceFile("folder", "y").ok());
  EXPECT_EQ(CodeOf(dir.folder().ReplaceFile("none/file", "y")), absl::StatusCode::kNotFound);
  EXPECT_EQ(*dir.folder().List(), std::vector<std::string>{"folder"});
}

}  // namespace
}  // namespace peerchunk
