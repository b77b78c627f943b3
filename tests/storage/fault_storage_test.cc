#include "tests/support/fault_storage.h"

#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "tests/support/memory_storage.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

class FaultStorageTest : public testing::Test {
 protected:
  FaultStorageTest() { memory_.Seed("a", bytes_); }

  std::pair<std::string, absl::Status> ReadBlob(const ReadOptions& options = {}) {
    StringSink sink(kGiB);
    const absl::Status status = (*storage_.OpenBlob("a"))->WriteTo(sink, options);
    return {std::move(sink.bytes()), status};
  }

  std::pair<std::string, absl::Status> ReadRange(const ReadOptions& options = {}) {
    const auto object = *storage_.OpenSeekable("a");
    const auto reader = object->OpenRangeReader(0, UINT64_MAX, options);
    std::string bytes;
    if (!reader.ok()) return {bytes, reader.status()};
    while (true) {
      const absl::StatusOr<std::optional<Extent>> extent = (*reader)->Next();
      if (!extent.ok() || !*extent) return {bytes, extent.status()};
      EXPECT_EQ((*extent)->offset, bytes.size());
      bytes.resize(bytes.size() + (*extent)->length);
      (*extent)->CopyTo(bytes.data() + (*extent)->offset);
    }
  }

  absl::StatusOr<std::string> ReadAt(uint64_t offset, size_t length,
                                     const ReadOptions& options = {}) {
    std::string out(length, '\0');
    PEERCHUNK_ASSIGN_OR_RETURN(
        const size_t read,
        (*storage_.OpenSeekable("a"))->ReadAt(offset, absl::MakeSpan(out), options));
    out.resize(read);
    return out;
  }

  // Data, then zeros, so that faults fall into both.
  const std::string bytes_ = SampleBytes(2 * kMiB, 1) + std::string(kMiB, '\0');
  SimulatedClock clock_;
  MemoryStorageProvider memory_{clock_};
  FaultStorageProvider storage_{memory_, clock_};
};

TEST_F(FaultStorageTest, ErrorComesAfterTheBytesItWasSetTo) {
  for (const uint64_t after : {uint64_t{0}, uint64_t{1}, kMiB + 7, 2 * kMiB + 5, 3 * kMiB}) {
    SCOPED_TRACE(after);
    storage_.ClearFaults();
    storage_.AddFault({.after_bytes = after, .error = absl::UnavailableError("fault")});
    for (const auto& [bytes, status] : {ReadBlob(), ReadRange()}) {
      EXPECT_EQ(CodeOf(status), absl::StatusCode::kUnavailable);
      EXPECT_TRUE(bytes == bytes_.substr(0, after));
    }
    EXPECT_EQ(CodeOf(ReadAt(0, 3 * kMiB)), absl::StatusCode::kUnavailable);
  }
  EXPECT_OK(ReadAt(0, 100)) << "a read that ends before the fault";
}

TEST_F(FaultStorageTest, TruncatedReadEndsWell) {
  storage_.AddFault({.after_bytes = kMiB + 7, .truncate = true});
  for (const auto& [bytes, status] : {ReadBlob(), ReadRange()}) {
    EXPECT_OK(status);
    EXPECT_TRUE(bytes == bytes_.substr(0, kMiB + 7));
  }
  EXPECT_EQ(ReadAt(0, 2 * kMiB)->size(), kMiB + 7);
}

TEST_F(FaultStorageTest, CorruptReadDiffersInOneByte) {
  for (const uint64_t at : {uint64_t{0}, kMiB + 7, 2 * kMiB + 5}) {
    SCOPED_TRACE(at);
    storage_.ClearFaults();
    storage_.AddFault({.after_bytes = at, .corrupt = true});
    std::string expected = bytes_;
    expected[at] = static_cast<char>(expected[at] ^ 0x10);
    EXPECT_TRUE(ReadBlob().first == expected);
    EXPECT_TRUE(ReadRange().first == expected);
    EXPECT_TRUE(*ReadAt(0, 3 * kMiB) == expected);
  }
}

TEST_F(FaultStorageTest, FaultsStrikeAsOftenAsSetAndOnlyTheirObject) {
  memory_.Seed("b", "other");
  storage_.AddFault({.path = "a", .skip = 1, .times = 2, .error = absl::InternalError("fault")});
  StringSink sink(kMiB);
  EXPECT_OK((*storage_.OpenBlob("b"))->WriteTo(sink, {}));
  EXPECT_OK(ReadAt(0, 1));
  EXPECT_FALSE(ReadAt(0, 1).ok());
  EXPECT_FALSE(ReadBlob().second.ok());
  EXPECT_OK(ReadAt(0, 1));
  EXPECT_EQ(storage_.calls(StorageCall::kRead, "a"), 4u);
  EXPECT_EQ(storage_.calls(StorageCall::kRead), 5u);
  EXPECT_EQ(storage_.bytes_read(), 7u);
}

TEST_F(FaultStorageTest, StallLastsUntilCancelled) {
  storage_.AddFault({.after_bytes = kMiB, .stall = true});
  std::stop_source stop;
  ReadOptions options;
  options.cancellation = stop.get_token();
  std::thread reader(
      [&] { EXPECT_EQ(CodeOf(ReadBlob(options).second), absl::StatusCode::kCancelled); });
  storage_.AwaitStalled(1);
  stop.request_stop();
  reader.join();
}

TEST_F(FaultStorageTest, StallLastsUntilTheDeadline) {
  storage_.AddFault({.stall = true});
  ReadOptions options;
  options.deadline = clock_.Now() + absl::Seconds(5);
  std::thread reader(
      [&] { EXPECT_EQ(CodeOf(ReadAt(0, 1, options)), absl::StatusCode::kDeadlineExceeded); });
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(5));
  reader.join();
}

TEST_F(FaultStorageTest, ClearingLetsAStalledReadGoOn) {
  storage_.AddFault({.after_bytes = 2 * kMiB + 1, .stall = true});
  std::thread reader([&] {
    const auto [bytes, status] = ReadRange();
    EXPECT_OK(status);
    EXPECT_TRUE(bytes == bytes_);
  });
  storage_.AwaitStalled(1);
  storage_.ClearFaults();
  reader.join();
}

TEST_F(FaultStorageTest, DelayTakesTimeOnTheClock) {
  clock_.AdvanceOnWait();
  const absl::Time start = clock_.Now();
  storage_.AddFault({.delay = absl::Seconds(3)});
  EXPECT_OK(ReadAt(0, 1));
  EXPECT_EQ(clock_.Now() - start, absl::Seconds(3));
  ReadOptions options;
  options.deadline = clock_.Now() + absl::Seconds(1);
  EXPECT_EQ(CodeOf(ReadAt(0, 1, options)), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(FaultStorageTest, WriteFailsBeforeOrAfterItIsDone) {
  storage_.AddFault(
      {.call = StorageCall::kWrite, .times = 1, .error = absl::UnavailableError("before")});
  storage_.AddFault(
      {.call = StorageCall::kWrite, .after_write = true, .error = absl::UnavailableError("after")});
  const auto blob = *storage_.OpenBlob("new");
  EXPECT_FALSE(blob->Put("x", {}).ok());
  EXPECT_EQ(memory_.Bytes("new"), std::nullopt);
  EXPECT_FALSE(blob->Put("x", {}).ok());
  EXPECT_EQ(memory_.Bytes("new"), "x");
  const TempDir dir;
  EXPECT_FALSE((*storage_.OpenSeekable("file"))->StoreFile(dir.Write("f", "y"), {}).ok());
  EXPECT_EQ(memory_.Bytes("file"), "y");
}

TEST_F(FaultStorageTest, DeleteAndStatFailAsToldAndAnswersMayLie) {
  storage_.AddFault({.call = StorageCall::kDelete, .error = absl::UnavailableError("fault")});
  EXPECT_FALSE(storage_.DeleteObjectsWithPrefix("x/", {}).ok());
  storage_.AddFault(
      {.call = StorageCall::kStat, .times = 3, .error = absl::UnavailableError("fault")});
  const auto blob = *storage_.OpenBlob("a");
  const auto object = *storage_.OpenSeekable("a");
  EXPECT_FALSE(blob->Stat({}).ok());
  EXPECT_FALSE(blob->Exists({}).ok());
  EXPECT_FALSE(object->Size({}).ok());
  storage_.AddFault(
      {.call = StorageCall::kStat, .alter_stat = [](ObjectStat& stat) { stat.crc32c = 1; }});
  EXPECT_EQ(object->Stat({})->crc32c, 1u);
  storage_.AddFault(
      {.call = StorageCall::kWrite, .alter_stat = [](ObjectStat& stat) { stat.size = 7; }});
  EXPECT_EQ(blob->Put("xy", {})->size, 7u);
  EXPECT_EQ(memory_.Paths(), std::vector<std::string>{"a"});
  memory_.Remove("a");
  EXPECT_TRUE(memory_.Paths().empty());
}

}  // namespace
}  // namespace peerchunk::test
