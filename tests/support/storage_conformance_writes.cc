#include <fcntl.h>

#include <atomic>
#include <random>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/storage_conformance.h"
#include "tests/support/storage_conformance_internal.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {

void LinkWriteConformance() {}

// --- Writing -------------------------------------------------------------------------------------

TEST_P(StorageConformanceTest, UnwantedWriteWritesNothing) {
  SKIP_UNLESS(!capabilities().read_only);
  const TempDir local;
  const std::string file = local.Write("file", "bytes");
  std::stop_source stop;
  stop.request_stop();
  WriteOptions cancelled;
  cancelled.cancellation = stop.get_token();
  WriteOptions late;
  late.deadline = absl::InfinitePast();
  const auto blob = OpenBlob(BlobPath());
  const auto object = OpenSeekable(SeekablePath());
  EXPECT_EQ(CodeOf(blob->Put("bytes", cancelled)), absl::StatusCode::kCancelled);
  EXPECT_EQ(CodeOf(blob->Put("bytes", late)), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CodeOf(object->StoreFile(file, cancelled)), absl::StatusCode::kCancelled);
  EXPECT_EQ(CodeOf(object->StoreFile(file, late)), absl::StatusCode::kDeadlineExceeded);
  const std::string prefix = absl::StrCat(kConformanceBuild, "/");
  EXPECT_EQ(CodeOf(storage().DeleteObjectsWithPrefix(prefix, cancelled)),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(CodeOf(storage().DeleteObjectsWithPrefix(prefix, late)),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CodeOf(blob->Stat({})), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(object->Stat({})), absl::StatusCode::kNotFound);
}

TEST_P(StorageConformanceTest, PutReturnsWhatIsStored) {
  SKIP_UNLESS(!capabilities().read_only);
  const std::string bytes = SparseBytes(2 * kMiB + 1, 14);
  const auto blob = OpenBlob(BlobPath());
  WriteOptions options;
  options.crc32c = Crc32c(bytes);
  options.metadata = {{"peerchunk-version", "7"}, {"empty", ""}};
  const absl::StatusOr<ObjectStat> put = blob->Put(bytes, options);
  ASSERT_OK(put);
  const absl::StatusOr<ObjectStat> stat = blob->Stat({});
  ASSERT_OK(stat);
  EXPECT_EQ(put->size, bytes.size());
  EXPECT_EQ(stat->size, bytes.size());
  EXPECT_EQ(put->version, stat->version);
  if (capabilities().knows_crc) {
    EXPECT_EQ(put->crc32c, Crc32c(bytes));
    EXPECT_EQ(stat->crc32c, Crc32c(bytes));
  }
  if (capabilities().keeps_metadata) {
    EXPECT_EQ(put->metadata, options.metadata);
    EXPECT_EQ(stat->metadata, options.metadata);
  }
  const absl::StatusOr<std::string> read = ReadBlob(BlobPath());
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes);
}

TEST_P(StorageConformanceTest, EmptyPutAndEmptyFileAreObjects) {
  SKIP_UNLESS(!capabilities().read_only);
  const TempDir local;
  ASSERT_OK(OpenBlob(BlobPath())->Put("", {}));
  ASSERT_OK(OpenSeekable(SeekablePath())->StoreFile(local.Write("empty", ""), {}));
  for (const absl::StatusOr<ObjectStat>& stat :
       {OpenBlob(BlobPath())->Stat({}), OpenSeekable(SeekablePath())->Stat({})}) {
    ASSERT_OK(stat);
    EXPECT_EQ(stat->size, 0u);
  }
}

TEST_P(StorageConformanceTest, PutReplacesTheWholeObject) {
  SKIP_UNLESS(!capabilities().read_only);
  const auto blob = OpenBlob(BlobPath());
  ASSERT_OK(blob->Put("a longer first version", {}));
  ASSERT_OK(blob->Put("second", {}));
  const absl::StatusOr<std::string> read = ReadBlob(BlobPath());
  ASSERT_OK(read);
  EXPECT_EQ(*read, "second");
}

TEST_P(StorageConformanceTest, WriteIfAbsentKeepsWhatIsThere) {
  SKIP_UNLESS(!capabilities().read_only);
  const TempDir local;
  const std::string file = local.Write("file", "second");
  WriteOptions options;
  options.if_absent = true;
  const auto blob = OpenBlob(BlobPath());
  const auto object = OpenSeekable(SeekablePath());
  EXPECT_OK(blob->Put("first", options));
  EXPECT_OK(object->StoreFile(local.Write("other", "first"), options));
  EXPECT_EQ(CodeOf(blob->Put("second", options)), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(CodeOf(object->StoreFile(file, options)), absl::StatusCode::kAlreadyExists);
  for (const std::string& path : {BlobPath(), SeekablePath()}) {
    const absl::StatusOr<std::string> read = ReadRange(path, 0, kMax);
    ASSERT_OK(read);
    EXPECT_EQ(*read, "first");
  }
}

TEST_P(StorageConformanceTest, WriteIfVersionReplacesOnlyThatVersion) {
  SKIP_UNLESS(!capabilities().read_only);
  const TempDir local;
  const std::string file = local.Write("file", "third");
  const auto blob = OpenBlob(BlobPath());
  const auto object = OpenSeekable(BlobPath());
  const absl::StatusOr<ObjectStat> first = blob->Put("first", {});
  ASSERT_OK(first);
  WriteOptions if_first;
  if_first.if_version = first->version;
  const absl::StatusOr<ObjectStat> second = blob->Put("second", if_first);
  ASSERT_OK(second);
  EXPECT_EQ(CodeOf(blob->Put("third", if_first)), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(object->StoreFile(file, if_first)), absl::StatusCode::kAborted);
  const absl::StatusOr<std::string> kept = ReadBlob(BlobPath());
  ASSERT_OK(kept);
  EXPECT_EQ(*kept, "second");
  const absl::StatusOr<ObjectStat> stat = blob->Stat({});
  ASSERT_OK(stat);
  EXPECT_EQ(stat->version, second->version);
  if (capabilities().knows_crc) {
    EXPECT_EQ(stat->crc32c, Crc32c("second"));
  }
  WriteOptions if_second;
  if_second.if_version = second->version;
  ASSERT_OK(object->StoreFile(file, if_second));

  EXPECT_EQ(CodeOf(OpenBlob(PathInBuild("metadata.json"))->Put("x", if_first)),
            absl::StatusCode::kAborted)
      << "an object that is not there is of no version";
}

TEST_P(StorageConformanceTest, WriteWithBothConditionsIsRefused) {
  SKIP_UNLESS(!capabilities().read_only);
  const TempDir local;
  WriteOptions options;
  options.if_absent = true;
  options.if_version = "1";
  EXPECT_EQ(CodeOf(OpenBlob(BlobPath())->Put("x", options)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(OpenSeekable(BlobPath())->StoreFile(local.Write("x", "x"), options)),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(StorageConformanceTest, WrongChecksumWritesNothing) {
  SKIP_UNLESS(!capabilities().read_only);
  const TempDir local;
  const std::string bytes = SampleBytes(kMiB + 1, 15);
  const std::string file = local.Write("file", bytes);
  const auto blob = OpenBlob(BlobPath());
  const auto object = OpenSeekable(BlobPath());
  WriteOptions options;
  options.crc32c = Crc32c(bytes) ^ 1;
  EXPECT_EQ(CodeOf(blob->Put(bytes, options)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CodeOf(object->StoreFile(file, options)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CodeOf(blob->Stat({})), absl::StatusCode::kNotFound);

  ASSERT_OK(blob->Put("kept", {}));
  EXPECT_EQ(CodeOf(blob->Put(bytes, options)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CodeOf(object->StoreFile(file, options)), absl::StatusCode::kDataLoss);
  const absl::StatusOr<std::string> read = ReadBlob(BlobPath());
  ASSERT_OK(read);
  EXPECT_EQ(*read, "kept");
}

TEST_P(StorageConformanceTest, StoredFileReadsAsTheFile) {
  SKIP_UNLESS(!capabilities().read_only);
  const TempDir local;
  const std::string bytes = SparseBytes(5 * kMiB + 123, 16);
  // With holes where the bytes are zero.
  const absl::StatusOr<File> sparse = local.folder().OpenAt("sparse", O_RDWR | O_CREAT);
  ASSERT_OK(sparse);
  ASSERT_OK(sparse->Truncate(bytes.size()));
  for (uint64_t offset = 0; offset < bytes.size(); offset += kPageBytes) {
    const std::string_view page = std::string_view(bytes).substr(offset, kPageBytes);
    if (!IsAllZero(page)) {
      ASSERT_OK(sparse->WriteAt(offset, page));
    }
  }
  const auto object = OpenSeekable(SeekablePath());
  WriteOptions options;
  options.crc32c = Crc32c(bytes);
  const absl::StatusOr<ObjectStat> stored = object->StoreFile(local.PathOf("sparse"), options);
  ASSERT_OK(stored);
  EXPECT_EQ(stored->size, bytes.size());
  const absl::StatusOr<ObjectStat> stat = object->Stat({});
  ASSERT_OK(stat);
  EXPECT_EQ(stored->version, stat->version);
  const absl::StatusOr<std::string> read = ReadRange(SeekablePath(), 0, kMax);
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes);
}

TEST_P(StorageConformanceTest, FileThatIsNotThereStoresNothing) {
  SKIP_UNLESS(!capabilities().read_only);
  const TempDir local;
  const auto object = OpenSeekable(SeekablePath());
  EXPECT_FALSE(object->StoreFile(local.PathOf("nothing"), {}).ok());
  EXPECT_FALSE(object->StoreFile(local.path(), {}).ok()) << "a folder is not a file";
  EXPECT_EQ(CodeOf(object->Stat({})), absl::StatusCode::kNotFound);
}

// --- Paths and deletes ---------------------------------------------------------------------------

TEST_P(StorageConformanceTest, BadPathsAreRefused) {
  for (const std::string_view path :
       {"", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "a/../b", "../a", "a/..", "a\nb"}) {
    EXPECT_EQ(CodeOf(storage().OpenBlob(path)), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(CodeOf(storage().OpenSeekable(path)), absl::StatusCode::kInvalidArgument) << path;
  }
  EXPECT_EQ(CodeOf(storage().OpenBlob(std::string_view("a\0b", 3))),
            absl::StatusCode::kInvalidArgument);
  for (const std::string_view prefix :
       {"", "/", "a", "ab", "a/b", "../", "a/../", "a//", "//", "./"}) {
    EXPECT_EQ(CodeOf(storage().DeleteObjectsWithPrefix(prefix, {})),
              absl::StatusCode::kInvalidArgument)
        << prefix;
  }
}

TEST_P(StorageConformanceTest, DeleteByPrefixKeepsToThePrefix) {
  SKIP_UNLESS(!capabilities().read_only && capabilities().any_path);
  for (const std::string_view path : {"a/x", "a/b/y", "a/b/c/z", "ab/x", "b/a/x", "a-"}) {
    ASSERT_OK(OpenBlob(path)->Put("bytes", {}));
  }
  const absl::StatusOr<uint64_t> deleted = storage().DeleteObjectsWithPrefix("a/", {});
  ASSERT_OK(deleted);
  EXPECT_EQ(*deleted, 3u);
  for (const std::string_view path : {"a/x", "a/b/y", "a/b/c/z"}) {
    EXPECT_EQ(CodeOf(OpenBlob(path)->Stat({})), absl::StatusCode::kNotFound) << path;
  }
  for (const std::string_view path : {"ab/x", "b/a/x", "a-"}) {
    EXPECT_OK(OpenBlob(path)->Stat({})) << path;
  }
  const absl::StatusOr<uint64_t> again = storage().DeleteObjectsWithPrefix("a/", {});
  ASSERT_OK(again);
  EXPECT_EQ(*again, 0u);
  ASSERT_OK(OpenBlob("a/x")->Put("made again", {}));
  const absl::StatusOr<std::string> read = ReadBlob("a/x");
  ASSERT_OK(read);
  EXPECT_EQ(*read, "made again");
}

// --- Threads -------------------------------------------------------------------------------------

TEST_P(StorageConformanceTest, ManyThreadsReadOneObject) {
  const std::string bytes = SparseBytes(2 * kMiB + 99, 17);
  Seed(SeekablePath(), bytes);
  const auto object = OpenSeekable(SeekablePath());
  InThreads([&](int thread) {
    std::mt19937_64 random(static_cast<uint64_t>(thread));
    for (int i = 0; i < 20; ++i) {
      const uint64_t offset = random() % bytes.size();
      const size_t length = random() % 100'000;
      const absl::StatusOr<std::string> read = ReadAtWhole(*object, offset, length);
      ASSERT_OK(read);
      EXPECT_TRUE(*read == bytes.substr(offset, length));
    }
  });
}

TEST_P(StorageConformanceTest, ReadersOfAReplacedObjectSeeWholeVersions) {
  SKIP_UNLESS(!capabilities().read_only);
  const std::string versions[] = {SampleBytes(kMiB + 1, 18), SampleBytes(kMiB + 1, 19)};
  const auto blob = OpenBlob(BlobPath());
  ASSERT_OK(blob->Put(versions[0], {}));
  InThreads([&](int thread) {
    for (int i = 0; i < 10; ++i) {
      if (thread == 0) {
        EXPECT_OK(blob->Put(versions[i % 2], {}));
        continue;
      }
      const absl::StatusOr<std::string> read = ReadBlob(BlobPath());
      if (read.ok()) {
        EXPECT_TRUE(*read == versions[0] || *read == versions[1]);
      } else {
        EXPECT_EQ(CodeOf(read), absl::StatusCode::kAborted) << read.status();
      }
      const absl::StatusOr<ObjectStat> stat = blob->Stat({});
      ASSERT_OK(stat);
      if (capabilities().knows_crc) {
        EXPECT_TRUE(stat->crc32c == Crc32c(versions[0]) || stat->crc32c == Crc32c(versions[1]));
      }
    }
  });
}

TEST_P(StorageConformanceTest, OneOfManyWritersIfAbsentWins) {
  SKIP_UNLESS(!capabilities().read_only);
  std::atomic<int> winners = 0;
  std::atomic<int> winner = -1;
  InThreads([&](int thread) {
    WriteOptions options;
    options.if_absent = true;
    const absl::StatusOr<ObjectStat> put =
        OpenBlob(BlobPath())->Put(absl::StrCat("thread ", thread), options);
    if (put.ok()) {
      ++winners;
      winner = thread;
    } else {
      EXPECT_EQ(CodeOf(put), absl::StatusCode::kAlreadyExists) << put.status();
    }
  });
  EXPECT_EQ(winners, 1);
  const absl::StatusOr<std::string> read = ReadBlob(BlobPath());
  ASSERT_OK(read);
  EXPECT_EQ(*read, absl::StrCat("thread ", winner.load()));
}

TEST_P(StorageConformanceTest, CountersKeptByVersionLoseNothing) {
  SKIP_UNLESS(!capabilities().read_only && capabilities().pins_versions);
  constexpr int kIncrements = 4;
  ASSERT_OK(OpenBlob(BlobPath())->Put(std::string(1, '\0'), {}));
  InThreads([&](int) {
    const auto blob = OpenBlob(BlobPath());
    for (int done = 0; done < kIncrements;) {
      const absl::StatusOr<ObjectStat> stat = blob->Stat({});
      ASSERT_OK(stat);
      ReadOptions pin;
      pin.version = stat->version;
      absl::StatusOr<std::string> value = ReadBlob(BlobPath(), pin);
      if (absl::IsAborted(value.status())) continue;
      ASSERT_OK(value);
      ++(*value)[0];
      WriteOptions options;
      options.if_version = stat->version;
      const absl::StatusOr<ObjectStat> put = blob->Put(*value, options);
      if (put.ok()) {
        ++done;
      } else {
        ASSERT_EQ(CodeOf(put), absl::StatusCode::kAborted) << put.status();
      }
    }
  });
  const absl::StatusOr<std::string> total = ReadBlob(BlobPath());
  ASSERT_OK(total);
  EXPECT_EQ((*total)[0], kThreads * kIncrements);
}

TEST_P(StorageConformanceTest, WritesAndDeletesOfOnePrefixDoNotDisturbEachOther) {
  SKIP_UNLESS(!capabilities().read_only && capabilities().any_path);
  InThreads([&](int thread) {
    for (int i = 0; i < 5; ++i) {
      if (thread == 0) {
        EXPECT_OK(storage().DeleteObjectsWithPrefix("shared/", {}));
        continue;
      }
      const std::string path = absl::StrCat("shared/", thread, "/object");
      ASSERT_OK(OpenBlob(path)->Put("bytes", {}));
      const absl::StatusOr<std::string> read = ReadBlob(path);
      if (read.ok()) {
        EXPECT_EQ(*read, "bytes");
      } else {
        EXPECT_EQ(CodeOf(read), absl::StatusCode::kNotFound) << read.status();
      }
    }
  });
}

}  // namespace peerchunk::test
