#include "tests/support/storage_conformance.h"

#include <algorithm>
#include <random>
#include <set>
#include <thread>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/storage_conformance_internal.h"

namespace peerchunk::test {
namespace {

// Runs a function at the first write, and may fail at one.
class HookSink final : public ByteSink {
 public:
  explicit HookSink(std::function<absl::Status()> at_first) : at_first_(std::move(at_first)) {}

  absl::Status Write(std::string_view data) override {
    ++writes_;
    bytes_ += data;
    if (failed_) ADD_FAILURE() << "written to after it failed";
    const absl::Status status = writes_ == 1 ? at_first_() : absl::OkStatus();
    failed_ = !status.ok();
    return status;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  const std::function<absl::Status()> at_first_;
  int writes_ = 0;
  bool failed_ = false;
  std::string bytes_;
};

}  // namespace

std::string PathInBuild(std::string_view name) {
  return absl::StrCat(kConformanceBuild, "/", AbslView(name));
}
std::string BlobPath() { return PathInBuild("snapfile"); }
std::string SeekablePath() { return PathInBuild("memfile"); }

std::string SparseBytes(size_t size, uint64_t seed) {
  std::string bytes = SampleBytes(size, seed);
  const auto zero = [&](size_t from, size_t to) {
    std::fill(bytes.begin() + std::min(from, size), bytes.begin() + std::min(to, size), '\0');
  };
  zero(64 * kKiB, 192 * kKiB);
  zero(kMiB - 100, kMiB + 9000);
  zero(2 * kMiB, size_t{3} * kMiB - 1);
  return bytes;
}

absl::StatusOr<std::string> ReadAtWhole(Seekable& object, uint64_t offset, size_t length,
                                        const ReadOptions& options) {
  std::string out(length, '\x55');
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t read,
                             object.ReadAt(offset, absl::MakeSpan(out), options));
  out.resize(read);
  return out;
}

absl::StatusOr<std::string> Drain(RangeReader& reader, uint64_t offset) {
  std::string bytes;
  while (true) {
    const absl::StatusOr<std::optional<Extent>> extent = reader.Next();
    if (!extent.ok()) {
      EXPECT_EQ(reader.Next().status().code(), extent.status().code()) << "an error must stay";
      return extent.status();
    }
    if (!*extent) break;
    EXPECT_EQ((*extent)->offset, offset + bytes.size());
    EXPECT_GT((*extent)->length, 0u);
    uint64_t in_pieces = 0;
    for (const std::string_view piece : (*extent)->pieces) in_pieces += piece.size();
    EXPECT_EQ(in_pieces, (*extent)->zero ? 0 : (*extent)->length);
    const size_t before = bytes.size();
    bytes.resize(before + (*extent)->length, '\x55');
    (*extent)->CopyTo(bytes.data() + before);
  }
  const absl::StatusOr<std::optional<Extent>> after = reader.Next();
  EXPECT_TRUE(after.ok() && !*after) << "the end must stay the end";
  return bytes;
}

void InThreads(const std::function<void(int thread)>& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

std::string StorageConformanceName(const testing::TestParamInfo<StorageConformanceParam>& info) {
  LinkWriteConformance();
  return info.param.name;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(StorageConformanceTest);

void StorageConformanceTest::SetUp() { fixture_ = GetParam().make(); }

void StorageConformanceTest::Seed(const std::string& path, std::string_view bytes) {
  ASSERT_OK(fixture_->Seed(path, bytes));
}

std::unique_ptr<Blob> StorageConformanceTest::OpenBlob(std::string_view path) {
  absl::StatusOr<std::unique_ptr<Blob>> blob = storage().OpenBlob(path);
  EXPECT_OK(blob);
  return blob.ok() ? *std::move(blob) : nullptr;
}

std::unique_ptr<Seekable> StorageConformanceTest::OpenSeekable(std::string_view path) {
  absl::StatusOr<std::unique_ptr<Seekable>> object = storage().OpenSeekable(path);
  EXPECT_OK(object);
  return object.ok() ? *std::move(object) : nullptr;
}

absl::StatusOr<std::string> StorageConformanceTest::ReadBlob(std::string_view path,
                                                             const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Blob> blob, storage().OpenBlob(path));
  StringSink sink(64 * kMiB);
  PEERCHUNK_RETURN_IF_ERROR(blob->WriteTo(sink, options));
  return std::move(sink.bytes());
}

absl::StatusOr<std::string> StorageConformanceTest::ReadRange(std::string_view path,
                                                              uint64_t offset, uint64_t length,
                                                              const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Seekable> object, storage().OpenSeekable(path));
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<RangeReader> reader,
                             object->OpenRangeReader(offset, length, options));
  return Drain(*reader, offset);
}

// --- Reading -------------------------------------------------------------------------------------

TEST_P(StorageConformanceTest, BlobOfAnySizeReadsWhole) {
  for (const size_t size : {size_t{1}, size_t{4095}, size_t{4097}, size_t{kMiB} - 1, size_t{kMiB},
                            size_t{kMiB} + 1, size_t{3 * kMiB} + 17}) {
    SCOPED_TRACE(size);
    if (!capabilities().replaces && size != 3 * kMiB + 17) continue;
    const std::string bytes = SparseBytes(size, size);
    Seed(BlobPath(), bytes);
    const absl::StatusOr<std::string> read = ReadBlob(BlobPath());
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes);
  }
}

TEST_P(StorageConformanceTest, EmptyObjectIsThereAndReadsAsNothing) {
  Seed(BlobPath(), "");
  Seed(SeekablePath(), "");
  const absl::StatusOr<std::string> blob = ReadBlob(BlobPath());
  ASSERT_OK(blob);
  EXPECT_EQ(*blob, "");
  const absl::StatusOr<bool> exists = OpenBlob(BlobPath())->Exists({});
  ASSERT_OK(exists);
  EXPECT_TRUE(*exists);

  const auto object = OpenSeekable(SeekablePath());
  const absl::StatusOr<uint64_t> size = object->Size({});
  ASSERT_OK(size);
  EXPECT_EQ(*size, 0u);
  const absl::StatusOr<std::string> read = ReadAtWhole(*object, 0, 10);
  ASSERT_OK(read);
  EXPECT_EQ(*read, "");
  EXPECT_EQ(CodeOf(ReadAtWhole(*object, 1, 10)), absl::StatusCode::kOutOfRange);
  const absl::StatusOr<std::string> range = ReadRange(SeekablePath(), 0, kMax);
  ASSERT_OK(range);
  EXPECT_EQ(*range, "");
}

TEST_P(StorageConformanceTest, MissingObjectIsNotFound) {
  const auto blob = OpenBlob(BlobPath());
  EXPECT_EQ(CodeOf(ReadBlob(BlobPath())), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(blob->Stat({})), absl::StatusCode::kNotFound);
  const absl::StatusOr<bool> exists = blob->Exists({});
  ASSERT_OK(exists);
  EXPECT_FALSE(*exists);

  const auto object = OpenSeekable(SeekablePath());
  EXPECT_EQ(CodeOf(object->Size({})), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(object->Stat({})), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(ReadAtWhole(*object, 0, 1)), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(ReadAtWhole(*object, 5, 0)), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(ReadRange(SeekablePath(), 0, 1)), absl::StatusCode::kNotFound);
}

TEST_P(StorageConformanceTest, StatTellsSizeChecksumAndVersion) {
  const std::string bytes = SparseBytes(kMiB + 5, 1);
  Seed(BlobPath(), bytes);
  Seed(SeekablePath(), bytes);
  for (const absl::StatusOr<ObjectStat>& stat :
       {OpenBlob(BlobPath())->Stat({}), OpenSeekable(SeekablePath())->Stat({})}) {
    ASSERT_OK(stat);
    EXPECT_EQ(stat->size, bytes.size());
    EXPECT_NE(stat->version, "");
    if (capabilities().knows_crc) {
      EXPECT_EQ(stat->crc32c, Crc32c(bytes));
    }
    if (stat->crc32c) {
      EXPECT_EQ(*stat->crc32c, Crc32c(bytes));
    }
  }
  const absl::StatusOr<uint64_t> size = OpenSeekable(SeekablePath())->Size({});
  ASSERT_OK(size);
  EXPECT_EQ(*size, bytes.size());
}

TEST_P(StorageConformanceTest, ReadAtIsShortOnlyAtTheEnd) {
  const std::string bytes = SparseBytes(2 * kMiB + 777, 2);
  Seed(SeekablePath(), bytes);
  const auto object = OpenSeekable(SeekablePath());
  const uint64_t size = bytes.size();
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{4095}, kMiB - 1, kMiB, kMiB + 1,
                                size - 4096, size - 1, size}) {
    for (const size_t length : {size_t{0}, size_t{1}, size_t{4096}, size_t{kMiB} + 1, size_t{size},
                                size_t{size} + 1, size_t{4 * kMiB}}) {
      SCOPED_TRACE(absl::StrCat("offset ", offset, " length ", length));
      const absl::StatusOr<std::string> read = ReadAtWhole(*object, offset, length);
      ASSERT_OK(read);
      EXPECT_TRUE(*read == bytes.substr(offset, length));
    }
  }
}

TEST_P(StorageConformanceTest, ReadPastTheEndIsOutOfRange) {
  const std::string bytes = SparseBytes(10'000, 3);
  Seed(SeekablePath(), bytes);
  const auto object = OpenSeekable(SeekablePath());
  for (const uint64_t offset : {uint64_t{10'001}, uint64_t{1} << 40, uint64_t{INT64_MAX},
                                uint64_t{INT64_MAX} + 1, kMax - 1, kMax}) {
    for (const uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{4096}}) {
      SCOPED_TRACE(absl::StrCat("offset ", offset, " length ", length));
      EXPECT_EQ(CodeOf(ReadAtWhole(*object, offset, length)), absl::StatusCode::kOutOfRange);
      EXPECT_EQ(CodeOf(ReadRange(SeekablePath(), offset, length)), absl::StatusCode::kOutOfRange);
    }
    EXPECT_EQ(CodeOf(ReadRange(SeekablePath(), offset, kMax)), absl::StatusCode::kOutOfRange);
  }
}

// A length is a wish: were memory taken for it, these would not come back.
TEST_P(StorageConformanceTest, HugeLengthIsCutAtTheEnd) {
  const std::string bytes = SparseBytes(300'000, 4);
  Seed(SeekablePath(), bytes);
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{299'999}, uint64_t{300'000}}) {
    for (const uint64_t length : {uint64_t{1} << 46, uint64_t{INT64_MAX}, kMax - offset, kMax}) {
      SCOPED_TRACE(absl::StrCat("offset ", offset, " length ", length));
      const absl::StatusOr<std::string> read = ReadRange(SeekablePath(), offset, length);
      ASSERT_OK(read);
      EXPECT_TRUE(*read == bytes.substr(offset));
    }
  }
}

TEST_P(StorageConformanceTest, RangesAreContiguousAndInOrder) {
  const std::string bytes = SparseBytes(3 * kMiB + 4097, 5);
  Seed(SeekablePath(), bytes);
  std::mt19937_64 random(6);
  for (int i = 0; i < 30; ++i) {
    const uint64_t offset = random() % (bytes.size() + 1);
    const uint64_t length = i % 3 == 0 ? random() % 5000 : random() % (2 * bytes.size());
    SCOPED_TRACE(absl::StrCat("offset ", offset, " length ", length));
    const absl::StatusOr<std::string> read = ReadRange(SeekablePath(), offset, length);
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes.substr(offset, length));
  }
}

TEST_P(StorageConformanceTest, AllZeroObjectReadsAsZeros) {
  const std::string bytes(2 * kMiB + 1, '\0');
  Seed(SeekablePath(), bytes);
  const absl::StatusOr<std::string> range = ReadRange(SeekablePath(), 0, kMax);
  ASSERT_OK(range);
  EXPECT_TRUE(*range == bytes);
  const absl::StatusOr<std::string> read =
      ReadAtWhole(*OpenSeekable(SeekablePath()), 1, bytes.size());
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes.substr(1));
}

TEST_P(StorageConformanceTest, ReaderMayBeDroppedHalfWay) {
  Seed(SeekablePath(), SampleBytes(4 * kMiB, 7));
  const auto object = OpenSeekable(SeekablePath());
  ASSERT_OK(object->OpenRangeReader(0, kMax, {}));
  absl::StatusOr<std::unique_ptr<RangeReader>> reader = object->OpenRangeReader(100, kMax, {});
  ASSERT_OK(reader);
  const absl::StatusOr<std::optional<Extent>> extent = (*reader)->Next();
  ASSERT_OK(extent);
  EXPECT_TRUE(extent->has_value());
}

TEST_P(StorageConformanceTest, ErrorOfTheSinkEndsTheRead) {
  const std::string bytes = SampleBytes(4 * kMiB, 8);
  Seed(BlobPath(), bytes);
  HookSink sink([] { return absl::ResourceExhaustedError("the sink is full"); });
  EXPECT_EQ(CodeOf(OpenBlob(BlobPath())->WriteTo(sink, {})), absl::StatusCode::kResourceExhausted);
  EXPECT_LT(sink.bytes().size(), bytes.size());
  EXPECT_TRUE(bytes.starts_with(sink.bytes()));
}

// --- Deadline and cancellation -------------------------------------------------------------------

template <typename Check>
void ForEveryRead(Blob& blob, Seekable& object, const ReadOptions& options, const Check& check) {
  StringSink sink(kMiB);
  check("WriteTo", CodeOf(blob.WriteTo(sink, options)));
  EXPECT_EQ(sink.bytes(), "");
  check("Exists", CodeOf(blob.Exists(options)));
  check("Blob::Stat", CodeOf(blob.Stat(options)));
  check("Size", CodeOf(object.Size(options)));
  check("Seekable::Stat", CodeOf(object.Stat(options)));
  check("ReadAt", CodeOf(ReadAtWhole(object, 0, 10, options)));
  absl::StatusOr<std::unique_ptr<RangeReader>> reader = object.OpenRangeReader(0, 10, options);
  check("RangeReader", reader.ok() ? CodeOf((*reader)->Next()) : CodeOf(reader));
}

TEST_P(StorageConformanceTest, PassedDeadlineEndsEveryRead) {
  Seed(BlobPath(), "blob");
  Seed(SeekablePath(), SampleBytes(10'000, 9));
  ReadOptions options;
  options.deadline = absl::InfinitePast();
  ForEveryRead(*OpenBlob(BlobPath()), *OpenSeekable(SeekablePath()), options,
               [](std::string_view call, absl::StatusCode code) {
                 EXPECT_EQ(code, absl::StatusCode::kDeadlineExceeded) << call;
               });
}

TEST_P(StorageConformanceTest, CancellationEndsEveryRead) {
  Seed(BlobPath(), "blob");
  Seed(SeekablePath(), SampleBytes(10'000, 10));
  std::stop_source stop;
  stop.request_stop();
  ReadOptions options;
  options.cancellation = stop.get_token();
  ForEveryRead(*OpenBlob(BlobPath()), *OpenSeekable(SeekablePath()), options,
               [](std::string_view call, absl::StatusCode code) {
                 EXPECT_EQ(code, absl::StatusCode::kCancelled) << call;
               });
}

TEST_P(StorageConformanceTest, CancellationEndsAReadUnderWay) {
  const std::string bytes = SampleBytes(16 * kMiB, 11);
  Seed(BlobPath(), bytes);
  std::stop_source stop;
  ReadOptions options;
  options.cancellation = stop.get_token();
  HookSink sink([&] {
    stop.request_stop();
    return absl::OkStatus();
  });
  EXPECT_EQ(CodeOf(OpenBlob(BlobPath())->WriteTo(sink, options)), absl::StatusCode::kCancelled);
  EXPECT_LT(sink.bytes().size(), bytes.size());
}

// --- Versions ------------------------------------------------------------------------------------

TEST_P(StorageConformanceTest, EveryContentHasAVersionOfItsOwn) {
  SKIP_UNLESS(capabilities().replaces && capabilities().pins_versions);
  std::set<std::string> versions;
  constexpr int kContents = 20;
  for (int i = 0; i < kContents; ++i) {
    Seed(BlobPath(), i % 2 == 0 ? "even" : "odds");
    const absl::StatusOr<ObjectStat> stat = OpenBlob(BlobPath())->Stat({});
    ASSERT_OK(stat);
    versions.insert(stat->version);
  }
  EXPECT_EQ(versions.size(), static_cast<size_t>(kContents));
}

TEST_P(StorageConformanceTest, VersionThatWasReplacedIsAborted) {
  SKIP_UNLESS(capabilities().replaces && capabilities().pins_versions);
  Seed(BlobPath(), "first");
  Seed(SeekablePath(), "first");
  const absl::StatusOr<ObjectStat> blob_stat = OpenBlob(BlobPath())->Stat({});
  const absl::StatusOr<ObjectStat> seekable_stat = OpenSeekable(SeekablePath())->Stat({});
  ASSERT_OK(blob_stat);
  ASSERT_OK(seekable_stat);
  ReadOptions blob_pin;
  blob_pin.version = blob_stat->version;
  ReadOptions seekable_pin;
  seekable_pin.version = seekable_stat->version;
  EXPECT_OK(ReadBlob(BlobPath(), blob_pin));
  EXPECT_OK(ReadRange(SeekablePath(), 0, kMax, seekable_pin));

  Seed(BlobPath(), "other");
  Seed(SeekablePath(), "other");
  EXPECT_EQ(CodeOf(ReadBlob(BlobPath(), blob_pin)), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(ReadRange(SeekablePath(), 0, kMax, seekable_pin)), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(ReadAtWhole(*OpenSeekable(SeekablePath()), 0, 5, seekable_pin)),
            absl::StatusCode::kAborted);
  const absl::StatusOr<std::string> now = ReadBlob(BlobPath());
  ASSERT_OK(now);
  EXPECT_EQ(*now, "other");
}

TEST_P(StorageConformanceTest, ReadUnderWaySeesOneVersion) {
  SKIP_UNLESS(capabilities().replaces);
  const std::string first = SampleBytes(8 * kMiB, 12);
  const std::string second = SampleBytes(8 * kMiB, 13);
  Seed(BlobPath(), first);
  HookSink sink([&] {
    Seed(BlobPath(), second);
    return absl::OkStatus();
  });
  const absl::Status blob = OpenBlob(BlobPath())->WriteTo(sink, {});
  EXPECT_TRUE(first.starts_with(sink.bytes()));
  if (blob.ok()) {
    EXPECT_EQ(sink.bytes().size(), first.size());
  } else {
    EXPECT_EQ(blob.code(), absl::StatusCode::kAborted) << blob;
  }

  Seed(SeekablePath(), first);
  const auto object = OpenSeekable(SeekablePath());
  const absl::StatusOr<std::unique_ptr<RangeReader>> reader = object->OpenRangeReader(0, kMax, {});
  ASSERT_OK(reader);
  const absl::StatusOr<std::optional<Extent>> extent = (*reader)->Next();
  ASSERT_OK(extent);
  ASSERT_TRUE(extent->has_value());
  const uint64_t position = (*extent)->length;
  Seed(SeekablePath(), second);
  const absl::StatusOr<std::string> rest = Drain(**reader, position);
  if (rest.ok()) {
    EXPECT_TRUE(*rest == first.substr(position));
  } else {
    EXPECT_EQ(CodeOf(rest), absl::StatusCode::kAborted) << rest.status();
  }
}

}  // namespace peerchunk::test
