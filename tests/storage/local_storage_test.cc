#include "peerchunk/storage/local_storage.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rename.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "tests/storage/local_storage_fixture.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using test::LocalStorageTest;
using test::SampleBytes;
using test::SimulatedClock;
using testing::HasSubstr;

TEST_F(LocalStorageTest, ObjectIsAPlainFileAtItsPath) {
  const auto storage = Open();
  ASSERT_OK((*storage->OpenBlob("a/b"))->Put("bytes", {}));
  EXPECT_EQ(dir_.Read("a/b"), "bytes");
  EXPECT_EQ(storage->Describe(), "folder " + dir_.path());
}

TEST_F(LocalStorageTest, ObjectsSurviveARestart) {
  WriteOptions options;
  options.metadata = {{"key", "value"}};
  const absl::StatusOr<ObjectStat> put = (*Open()->OpenBlob("a/b"))->Put("bytes", options);
  ASSERT_OK(put);
  const auto storage = Open();
  const absl::StatusOr<ObjectStat> stat = (*storage->OpenBlob("a/b"))->Stat({});
  ASSERT_OK(stat);
  EXPECT_EQ(stat->version, put->version);
  EXPECT_EQ(stat->crc32c, Crc32c("bytes"));
  EXPECT_EQ(stat->metadata, options.metadata);
}

TEST_F(LocalStorageTest, FolderIsMadeWhenMissing) {
  LocalStorageOptions options;
  options.folder = dir_.PathOf("made/on/demand");
  EXPECT_OK(LocalStorageProvider::Open(options));
  EXPECT_TRUE(*dir_.folder().Contains("made/on/demand/.peerchunk"));
}

TEST_F(LocalStorageTest, FolderThatCannotBeUsedIsNamedWithCauseAndRemedy) {
  dir_.Write("file", "x");
  for (const std::string& folder : {dir_.PathOf("file"), dir_.PathOf("file/below"),
                                    std::string("/proc/peerchunk"), std::string()}) {
    LocalStorageOptions options;
    options.folder = folder;
    const absl::Status status = LocalStorageProvider::Open(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << folder;
    EXPECT_THAT(std::string(status.message()), HasSubstr("'" + folder + "'"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("can write to"));
  }
}

TEST_F(LocalStorageTest, FolderWithAFileInPlaceOfItsOwnFoldersIsRefused) {
  dir_.Write(".peerchunk/tmp", "a file");
  LocalStorageOptions options;
  options.folder = dir_.path();
  EXPECT_EQ(CodeOf(LocalStorageProvider::Open(options)), absl::StatusCode::kFailedPrecondition);
}

TEST_F(LocalStorageTest, OwnFoldersCannotBeNamed) {
  const auto storage = Open();
  for (const std::string_view path : {".peerchunk", ".peerchunk/tmp/x", ".peerchunk/objects/a/1"}) {
    EXPECT_EQ(CodeOf(storage->OpenBlob(path)), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(CodeOf(storage->OpenSeekable(path)), absl::StatusCode::kInvalidArgument) << path;
  }
  for (const std::string_view prefix : {".peerchunk/", ".peerchunk/objects/"}) {
    EXPECT_EQ(CodeOf(storage->DeleteObjectsWithPrefix(prefix, {})),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_OK(storage->OpenBlob(".peerchunked"));
  EXPECT_OK(storage->OpenBlob("a/.peerchunk"));
}

// --- What lies in the folder and is no object of ours
// ---------------------------------------------

TEST_F(LocalStorageTest, FileWithoutASidecarReadsWithUnknownChecksum) {
  const auto storage = Open();
  dir_.Write("build/memfile", "by hand");
  const absl::StatusOr<ObjectStat> stat = (*storage->OpenBlob("build/memfile"))->Stat({});
  ASSERT_OK(stat);
  EXPECT_EQ(stat->size, 7u);
  EXPECT_EQ(stat->crc32c, std::nullopt);
  EXPECT_EQ(*Read(*storage, "build/memfile"), "by hand");
}

TEST_F(LocalStorageTest, FileWrittenOverAnObjectDoesNotInheritItsChecksum) {
  const auto storage = Open();
  ASSERT_OK((*storage->OpenBlob("a"))->Put("first", {}));
  ASSERT_OK(dir_.folder().ReplaceFile("a", "other"));
  EXPECT_EQ(*Read(*storage, "a"), "other");
  EXPECT_EQ((*storage->OpenBlob("a"))->Stat({})->crc32c, std::nullopt);
}

TEST_F(LocalStorageTest, FoldersAndPipesAreNoObjects) {
  const auto storage = Open();
  dir_.Write("folder/file", "x");
  ASSERT_EQ(mkfifo(dir_.PathOf("fifo").c_str(), 0600), 0);
  for (const std::string_view path : {"folder", "fifo", "folder/file/below"}) {
    EXPECT_EQ(CodeOf(Read(*storage, path)), absl::StatusCode::kNotFound) << path;
    EXPECT_FALSE(*(*storage->OpenBlob(path))->Exists({})) << path;
  }
}

TEST_F(LocalStorageTest, SymbolicLinksAreRefusedNotMissing) {
  const auto storage = Open();
  files_.Write("secret", "x");
  ASSERT_EQ(symlink(files_.path().c_str(), dir_.PathOf("link").c_str()), 0);
  EXPECT_EQ(CodeOf(Read(*storage, "link/secret")), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf((*storage->OpenBlob("link/new"))->Put("x", {})),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf(storage->DeleteObjectsWithPrefix("link/", {})),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(files_.Read("secret"), "x");
}

TEST_F(LocalStorageTest, ObjectInTheWayOfAFolderFailsTheWrite) {
  const auto storage = Open();
  ASSERT_OK((*storage->OpenBlob("a"))->Put("x", {}));
  EXPECT_EQ(CodeOf((*storage->OpenBlob("a/b"))->Put("y", {})),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_OK((*storage->OpenBlob("c/d"))->Put("x", {}));
  EXPECT_EQ(CodeOf((*storage->OpenBlob("c"))->Put("y", {})), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*Read(*storage, "a"), "x");
  EXPECT_EQ(*Read(*storage, "c/d"), "x");
  EXPECT_TRUE(List(".peerchunk/tmp").empty());
}

TEST_F(LocalStorageTest, FolderThatIsGoneIsNotAMissingObject) {
  const auto storage = Open();
  ASSERT_OK(dir_.folder().RemoveTree(".peerchunk"));
  EXPECT_EQ(CodeOf(Read(*storage, "a")), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf((*storage->OpenBlob("a"))->Exists({})), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf((*storage->OpenBlob("a"))->Put("x", {})), absl::StatusCode::kUnavailable);
}

TEST_F(LocalStorageTest, MetadataThatCannotBeKeptWritesNothing) {
  const auto storage = Open();
  WriteOptions options;
  options.metadata = {{"key", "\xFF"}};
  EXPECT_EQ(CodeOf((*storage->OpenBlob("a"))->Put("x", options)),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(*(*storage->OpenBlob("a"))->Exists({}));
}

// --- Housekeeping --------------------------------------------------------------------------------

TEST_F(LocalStorageTest, NothingStaleIsLeftBehind) {
  const auto storage = Open();
  for (int i = 0; i < 3; ++i) ASSERT_OK((*storage->OpenBlob("a/b"))->Put("bytes", {}));
  WriteOptions options;
  options.if_version = "another";
  EXPECT_FALSE((*storage->OpenBlob("a/b"))->Put("x", options).ok());
  options.if_version.reset();
  options.crc32c = 1;
  EXPECT_FALSE((*storage->OpenBlob("a/b"))->Put("x", options).ok());
  EXPECT_EQ(List(".peerchunk/objects/a/b").size(), 1u);
  EXPECT_TRUE(List(".peerchunk/tmp").empty());
  EXPECT_EQ((*storage->OpenBlob("a/b"))->Stat({})->crc32c, Crc32c("bytes"));

  EXPECT_EQ(*storage->DeleteObjectsWithPrefix("a/", {}), 1u);
  EXPECT_TRUE(List(".peerchunk/objects").empty());
  EXPECT_EQ(List("."), std::vector<std::string>{".peerchunk"});
}

TEST_F(LocalStorageTest, WriteThatFailsHalfWayLeavesNothing) {
  const auto storage = Open();
  ASSERT_OK((*storage->OpenBlob("a"))->Put("old", {}));
  const std::string bytes = SampleBytes(3 * kMiB, 10);
  const std::string file = files_.Write("file", bytes);
  rlimit unlimited = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  const rlimit limited = {kMiB + kMiB / 2, unlimited.rlim_max};
  const auto on_signal = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
  const absl::Status put = (*storage->OpenBlob("a"))->Put(bytes, {}).status();
  const absl::Status stored = (*storage->OpenSeekable("a"))->StoreFile(file, {}).status();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
  std::signal(SIGXFSZ, on_signal);
  EXPECT_THAT(std::string(put.message()), HasSubstr("write a in folder " + dir_.path()));
  EXPECT_THAT(std::string(stored.message()), HasSubstr("store " + file + " as a in folder"));
  EXPECT_EQ(*Read(*storage, "a"), "old");
  EXPECT_EQ((*storage->OpenBlob("a"))->Stat({})->crc32c, Crc32c("old"));
  EXPECT_TRUE(List(".peerchunk/tmp").empty());
}

TEST_F(LocalStorageTest, DeleteTakesSidecarsWithoutObjects) {
  const auto storage = Open();
  ASSERT_OK((*storage->OpenBlob("a/b"))->Put("bytes", {}));
  ASSERT_OK(dir_.folder().Remove("a/b"));
  EXPECT_EQ(*storage->DeleteObjectsWithPrefix("a/", {}), 0u);
  EXPECT_TRUE(List(".peerchunk/objects").empty());
}

TEST_F(LocalStorageTest, LeftoversGoAtOpenAndLiveWritesStay) {
  SimulatedClock clock;
  LocalStorageOptions options;
  options.write_bytes_per_second = kMiB;
  options.clock = &clock;
  const auto slow = Open(options);
  std::thread writer([&] { EXPECT_OK((*slow->OpenBlob("live"))->Put(SampleBytes(kMiB, 3), {})); });
  clock.AwaitWaiters(1);
  ASSERT_EQ(List(".peerchunk/tmp").size(), 1u);
  dir_.Write(".peerchunk/tmp/" + TemporaryName(), "half an object");  // Of a dead process.
  const auto other = Open();
  EXPECT_EQ(List(".peerchunk/tmp").size(), 1u) << "only the live one stays";
  EXPECT_TRUE(clock.AdvanceToNextDeadline());
  writer.join();
  EXPECT_EQ(Read(*other, "live")->size(), kMiB);
  EXPECT_TRUE(List(".peerchunk/tmp").empty());
}

// --- Rate, deadline, cancellation ----------------------------------------------------------------

TEST_F(LocalStorageTest, StoreFileTakesAsLongAsConfigured) {
  SimulatedClock clock;
  clock.AdvanceOnWait();
  LocalStorageOptions options;
  options.write_bytes_per_second = kMiB;
  options.clock = &clock;
  const auto storage = Open(options);
  const std::string file = files_.Write("file", SampleBytes(5 * kMiB / 2, 4));
  const absl::Time start = clock.Now();
  ASSERT_OK((*storage->OpenSeekable("a"))->StoreFile(file, {}));
  EXPECT_EQ(clock.Now() - start, absl::Milliseconds(2500));
  ASSERT_OK((*storage->OpenBlob("b"))->Put(SampleBytes(kMiB, 5), {}));
  EXPECT_EQ(clock.Now() - start, absl::Milliseconds(3500));
  EXPECT_OK(Read(*storage, "a"));
  EXPECT_EQ(clock.Now() - start, absl::Milliseconds(3500)) << "reads have a limit of their own";
}

TEST_F(LocalStorageTest, ReadsTakeAsLongAsConfigured) {
  SimulatedClock clock;
  clock.AdvanceOnWait();
  LocalStorageOptions options;
  options.read_bytes_per_second = kMiB;
  options.clock = &clock;
  const auto storage = Open(options);
  ASSERT_OK((*storage->OpenBlob("a"))->Put(SampleBytes(2 * kMiB, 6), {}));
  const absl::Time start = clock.Now();
  EXPECT_OK(Read(*storage, "a"));
  EXPECT_EQ(clock.Now() - start, absl::Seconds(2));
  const auto reader = *(*storage->OpenSeekable("a"))->OpenRangeReader(0, kMiB / 2, {});
  EXPECT_OK(reader->Next());
  EXPECT_EQ(clock.Now() - start, absl::Milliseconds(2500));
}

TEST_F(LocalStorageTest, DeadlineEndsASlowReadAndASlowWrite) {
  SimulatedClock clock;
  clock.AdvanceOnWait();
  LocalStorageOptions options;
  options.read_bytes_per_second = kMiB;
  options.write_bytes_per_second = kMiB;
  options.clock = &clock;
  const auto storage = Open(options);
  const std::string bytes = SampleBytes(4 * kMiB, 7);
  ASSERT_OK((*storage->OpenBlob("a"))->Put(bytes, {}));

  ReadOptions read;
  read.deadline = clock.Now() + absl::Milliseconds(1500);
  StringSink sink(kGiB);
  EXPECT_EQ(CodeOf((*storage->OpenBlob("a"))->WriteTo(sink, read)),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(clock.Now(), read.deadline);
  EXPECT_EQ(sink.bytes().size(), kMiB);

  WriteOptions write;
  write.deadline = clock.Now() + absl::Milliseconds(1500);
  EXPECT_EQ(CodeOf((*storage->OpenBlob("b"))->Put(bytes, write)),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CodeOf((*storage->OpenSeekable("b"))->StoreFile(files_.Write("f", bytes), write)),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(*(*storage->OpenBlob("b"))->Exists({}));
  EXPECT_TRUE(List(".peerchunk/tmp").empty());
}

TEST_F(LocalStorageTest, CancellationEndsAWaitAtTheLimit) {
  SimulatedClock clock;
  LocalStorageOptions options;
  options.write_bytes_per_second = 1;
  options.clock = &clock;
  const auto storage = Open(options);
  std::stop_source stop;
  WriteOptions write;
  write.cancellation = stop.get_token();
  std::thread writer([&] {
    EXPECT_EQ(CodeOf((*storage->OpenBlob("a"))->Put("bytes", write)), absl::StatusCode::kCancelled);
  });
  clock.AwaitWaiters(1);
  stop.request_stop();
  writer.join();
  EXPECT_FALSE(*(*storage->OpenBlob("a"))->Exists({}));
}

// --- Files ---------------------------------------------------------------------------------------

TEST_F(LocalStorageTest, HolesStayHolesAndComeOutAsZeros) {
  const auto storage = Open();
  const absl::StatusOr<File> file = files_.folder().OpenAt("sparse", O_RDWR | O_CREAT);
  ASSERT_OK(file);
  ASSERT_OK(file->Truncate(64 * kMiB));
  ASSERT_OK(file->WriteAt(16 * kMiB, SampleBytes(kMiB, 8)));
  const auto object = *storage->OpenSeekable("a");
  ASSERT_OK(object->StoreFile(files_.PathOf("sparse"), {}));
  const absl::StatusOr<File> stored = dir_.folder().OpenAt("a", O_RDONLY);
  ASSERT_OK(stored);
  EXPECT_LT(*stored->AllocatedBytes(), 3 * kMiB);

  const auto reader = *object->OpenRangeReader(0, UINT64_MAX, {});
  std::vector<std::pair<uint64_t, bool>> extents;
  for (auto extent = reader->Next(); extent.ok() && *extent; extent = reader->Next()) {
    extents.emplace_back((*extent)->length, (*extent)->zero);
  }
  EXPECT_EQ(extents, (std::vector<std::pair<uint64_t, bool>>{
                         {16 * kMiB, true}, {kMiB, false}, {47 * kMiB, true}}));
}

TEST_F(LocalStorageTest, FileThatChangesWhileItIsStoredIsRefused) {
  SimulatedClock clock;
  LocalStorageOptions options;
  options.write_bytes_per_second = kMiB;
  options.clock = &clock;
  const auto storage = Open(options);
  // What happens to the file while its second piece waits at the rate limit.
  const std::vector<std::pair<std::string, std::function<absl::Status(const File&)>>> changes = {
      {"written", [](const File& file) { return file.WriteAt(0, "changed"); }},
      {"shrunk", [](const File& file) { return file.Truncate(kMiB); }},
      {"grown", [](const File& file) { return file.WriteAt(3 * kMiB, "more"); }},
  };
  for (const auto& [name, change] : changes) {
    SCOPED_TRACE(name);
    const std::string path = files_.Write(name, SampleBytes(2 * kMiB, 9));
    // The kernel's stamp ticks slowly: an old one shows the change.
    const timespec old[2] = {{1, 0}, {1, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), old, 0), 0);
    const absl::StatusOr<File> file = File::Open(path, O_RDWR);
    ASSERT_OK(file);
    absl::Status stored;
    std::thread writer(
        [&] { stored = (*storage->OpenSeekable("a"))->StoreFile(path, {}).status(); });
    clock.AwaitWaiters(1);
    const absl::Time first_piece = clock.Now();
    EXPECT_TRUE(clock.AdvanceToNextDeadline());
    EXPECT_EQ(clock.Now() - first_piece, absl::Seconds(1));
    clock.AwaitWaiters(1);
    ASSERT_OK(change(*file));
    EXPECT_TRUE(clock.AdvanceToNextDeadline());
    writer.join();
    EXPECT_EQ(stored.code(), absl::StatusCode::kFailedPrecondition) << stored;
    EXPECT_FALSE(*(*storage->OpenBlob("a"))->Exists({}));
  }
}

// Two providers on one folder are two processes to each other.
TEST_F(LocalStorageTest, ProvidersOfOneFolderAgreeOnVersions) {
  const auto one = Open();
  const auto two = Open();
  const absl::StatusOr<ObjectStat> put = (*one->OpenBlob("a"))->Put("first", {});
  ASSERT_OK(put);
  WriteOptions options;
  options.if_version = put->version;
  ASSERT_OK((*two->OpenBlob("a"))->Put("second", options));
  EXPECT_EQ(CodeOf((*one->OpenBlob("a"))->Put("third", options)), absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace peerchunk
