#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "tests/support/gcs/gcs_fixture.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;
using Kind = GcsFault::Kind;

FakeGcsOptions SmallMessages() {
  FakeGcsOptions options;
  options.read_message_bytes = 64 * kKiB;
  return options;
}

class GcsReadTest : public testing::Test {
 protected:
  void SetUp() override { gcs_.fake->Seed("base/a/object", bytes_); }
  void TearDown() override { EXPECT_TRUE(gcs_.fake->violations().empty()); }

  absl::StatusOr<std::string> Read(const ReadOptions& options = {}) {
    return gcs_.Read("a/object", options);
  }
  absl::Duration Elapsed() { return gcs_.clock.Now() - start_; }

  GcsFixture gcs_{SmallMessages()};
  const std::string bytes_ = SampleBytes(500'000, 1);
  const absl::Time start_ = gcs_.clock.Now();
};

// What the service may well mend by itself.
class GcsReadAgainTest : public GcsReadTest, public testing::WithParamInterface<Code> {};

TEST_P(GcsReadAgainTest, ErrorGoesOnAtTheByteReachedOnAnotherChannel) {
  const auto busy = gcs_.KeepOthersBusy();
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, GetParam(), 3);
  const absl::StatusOr<std::string> read = Read();
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes_);
  const std::vector<FakeCallRecord> calls = gcs_.fake->calls();
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_NE(calls[0].connection, calls[1].connection);
  EXPECT_EQ(calls[0].token, calls[1].token);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_read_resumes_total"), 1u);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_read_bytes_total"), bytes_.size());
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_retries_total",
                           {{"reason", std::string(StatusCodeName(GetParam()))}}),
            1u);
}

TEST_P(GcsReadAgainTest, StatIsAskedAgain) {
  const auto busy = gcs_.KeepOthersBusy();
  gcs_.Inject(GcsRpc::kGetObject, Kind::kError, GetParam());
  const absl::StatusOr<ObjectStat> stat = gcs_.Open("a/object")->Stat({});
  ASSERT_OK(stat);
  EXPECT_EQ(stat->crc32c, Crc32c(bytes_));
  const std::vector<FakeCallRecord> calls = gcs_.fake->calls();
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_NE(calls[0].connection, calls[1].connection);
  EXPECT_EQ(calls[0].token, calls[1].token);
}

INSTANTIATE_TEST_SUITE_P(Codes, GcsReadAgainTest,
                         testing::Values(Code::kUnavailable, Code::kInternal,
                                         Code::kDeadlineExceeded, Code::kUnknown, Code::kAborted,
                                         Code::kResourceExhausted, Code::kUnauthenticated),
                         [](const auto& info) { return std::string(StatusCodeName(info.param)); });

TEST_F(GcsReadTest, SilenceBeforeTheFirstByteIsCutAfterItsBudget) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kStall);
  const absl::StatusOr<std::string> read = Read();
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes_);
  EXPECT_GE(Elapsed(), gcs_.options.tuning.first_byte);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_stalls_total", {{"reason", "first_byte"}}), 1u);
}

TEST_F(GcsReadTest, SilenceBetweenMessagesIsCutAfterItsBudget) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kStall, Code::kOk, 2);
  const absl::StatusOr<std::string> read = Read();
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes_);
  EXPECT_GE(Elapsed(), gcs_.options.tuning.read_stall);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_stalls_total", {{"reason", "read"}}), 1u);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_read_resumes_total"), 1u);
}

TEST_F(GcsReadTest, ConsumersOwnTimeIsNoStall) {
  const auto object = gcs_.Open("a/object");
  const auto reader = object->OpenRangeReader(0, bytes_.size(), {});
  ASSERT_OK(reader);
  while (true) {
    const absl::StatusOr<std::optional<Extent>> extent = (*reader)->Next();
    ASSERT_OK(extent);
    if (!*extent) break;
    gcs_.clock.Advance(absl::Hours(1));
  }
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kReadObject), 1u);
}

TEST_F(GcsReadTest, ConsumersOwnTimeIsNotCountedAgainstTheBudget) {
  const auto object = gcs_.Open("a/object");
  const auto reader = object->OpenRangeReader(0, bytes_.size(), {});
  ASSERT_OK(reader);
  for (const int after : {0, 2, 1}) {
    gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnavailable, after);
  }
  std::string read;
  while (true) {
    gcs_.clock.Advance(absl::Hours(1));
    const absl::StatusOr<std::optional<Extent>> extent = (*reader)->Next();
    ASSERT_OK(extent);
    if (!*extent) break;
    for (const std::string_view piece : (*extent)->pieces) read += piece;
  }
  EXPECT_TRUE(read == bytes_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kReadObject), 4u);
}

TEST_F(GcsReadTest, StreamThatEndsEarlyGoesOn) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kEndsEarly, Code::kOk, 1);
  gcs_.Inject(GcsRpc::kReadObject, Kind::kEndsEarly, Code::kOk, 0);
  gcs_.Inject(GcsRpc::kReadObject, Kind::kEndsEarly, Code::kOk, 4);
  const absl::StatusOr<std::string> read = Read();
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kReadObject), 4u);
}

TEST_F(GcsReadTest, ErrorAfterTheLastByteIsNone) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kLostAnswer);
  const absl::StatusOr<std::string> read = Read();
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes_);
}

TEST_F(GcsReadTest, TooMuchAtOnceWaitsAtLeastASecond) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kResourceExhausted);
  ASSERT_OK(Read());
  EXPECT_GE(Elapsed(), absl::Seconds(1));
}

TEST_F(GcsReadTest, MessageOverTheReceiveLimitIsFatal) {
  gcs_.fake->Inject({GcsRpc::kReadObject, Kind::kError, Code::kResourceExhausted, 0,
                     "Received message larger than max (70000000 vs. 67108864)"});
  EXPECT_EQ(CodeOf(Read()), Code::kResourceExhausted);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kReadObject), 1u);
}

TEST_F(GcsReadTest, UnauthenticatedIsTriedOnceMoreAfterASecond) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnauthenticated);
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnauthenticated);
  EXPECT_EQ(CodeOf(Read()), Code::kUnauthenticated);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kReadObject), 2u);
  EXPECT_GE(Elapsed(), absl::Seconds(1));
}

class GcsReadFailsTest : public GcsReadTest, public testing::WithParamInterface<Code> {};

TEST_P(GcsReadFailsTest, AtOnce) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, GetParam());
  EXPECT_EQ(CodeOf(Read()), GetParam());
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kReadObject), 1u);
}

INSTANTIATE_TEST_SUITE_P(Codes, GcsReadFailsTest,
                         testing::Values(Code::kNotFound, Code::kFailedPrecondition,
                                         Code::kPermissionDenied, Code::kUnimplemented,
                                         Code::kInvalidArgument),
                         [](const auto& info) { return std::string(StatusCodeName(info.param)); });

TEST_F(GcsReadTest, OutOfRangeAtTheEndIsTheEnd) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kOutOfRange);
  const absl::StatusOr<std::string> read = gcs_.ReadRange("a/object", bytes_.size(), 10);
  ASSERT_OK(read);
  EXPECT_EQ(*read, "");
}

TEST_F(GcsReadTest, OutOfRangeInsideIsNoEnd) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kOutOfRange, 2);
  const absl::StatusOr<std::string> read = Read();
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes_);
}

TEST_F(GcsReadTest, WrongBytesAreDataLossAndNeverSeen) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kWrongBytes, Code::kOk, 2);
  const auto object = gcs_.Open("a/object");
  const auto reader = object->OpenRangeReader(0, bytes_.size(), {});
  ASSERT_OK(reader);
  for (int i = 0; i < 2; ++i) ASSERT_OK((*reader)->Next());
  EXPECT_EQ(CodeOf((*reader)->Next()), Code::kDataLoss);
  EXPECT_EQ(CodeOf((*reader)->Next()), Code::kDataLoss);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_checksum_mismatches_total"), 1u);
}

TEST_F(GcsReadTest, BytesWithoutAChecksumAreDataLoss) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kUnchecked, Code::kOk, 1);
  const auto object = gcs_.Open("a/object");
  const auto reader = object->OpenRangeReader(0, bytes_.size(), {});
  ASSERT_OK(reader);
  ASSERT_OK((*reader)->Next());
  EXPECT_EQ(CodeOf((*reader)->Next()), Code::kDataLoss);
}

TEST_F(GcsReadTest, ForgedBytesAreFoundByTheWholeObjectsChecksum) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kForgedBytes, Code::kOk, 2);
  StringSink sink(kMiB);
  const auto blob = gcs_.storage->OpenBlob("a/object");
  ASSERT_OK(blob);
  EXPECT_EQ(CodeOf((*blob)->WriteTo(sink, {})), Code::kDataLoss);
  EXPECT_LT(sink.bytes().size(), bytes_.size()) << "the end must not be handed out unchecked";
}

TEST_F(GcsReadTest, WholeObjectsChecksumHoldsAcrossResumes) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnavailable, 1);
  gcs_.Inject(GcsRpc::kReadObject, Kind::kForgedBytes, Code::kOk, 2);
  EXPECT_EQ(CodeOf(Read()), Code::kDataLoss);
}

TEST_F(GcsReadTest, ResumeStaysWithTheGenerationOfTheFirstMessage) {
  const auto object = gcs_.Open("a/object");
  const auto reader = object->OpenRangeReader(0, bytes_.size(), {});
  ASSERT_OK(reader);
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnavailable, 2);
  ASSERT_OK((*reader)->Next());
  gcs_.fake->Seed("base/a/object", SampleBytes(bytes_.size(), 2));
  ASSERT_OK((*reader)->Next());
  EXPECT_EQ(CodeOf((*reader)->Next()), Code::kAborted);
}

TEST_F(GcsReadTest, ObjectDeletedUnderAReadIsNotFound) {
  const auto object = gcs_.Open("a/object");
  const auto reader = object->OpenRangeReader(0, bytes_.size(), {});
  ASSERT_OK(reader);
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnavailable, 1);
  ASSERT_OK((*reader)->Next());
  gcs_.fake->Erase("base/a/object");
  EXPECT_EQ(CodeOf((*reader)->Next()), Code::kNotFound);
}

TEST_F(GcsReadTest, VersionThatIsNoGenerationIsAborted) {
  ReadOptions options;
  options.version = "v1";
  EXPECT_EQ(CodeOf(Read(options)), Code::kAborted);
  EXPECT_EQ(CodeOf(gcs_.Open("a/object")->Stat(options)), Code::kAborted);
}

TEST_F(GcsReadTest, ResumedRangeAsksForTheRestOnly) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnavailable, 1);
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnavailable, 1);
  const absl::StatusOr<std::string> read = gcs_.ReadRange("a/object", 1'000, 200'000);
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes_.substr(1'000, 200'000));
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_read_bytes_total"), 200'000u);
}

TEST_F(GcsReadTest, GivesUpAfterItsBudgetWithoutAByte) {
  for (int i = 0; i < 1'000; ++i) {
    gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnavailable);
  }
  EXPECT_EQ(CodeOf(Read()), Code::kUnavailable);
  EXPECT_GT(Elapsed(), absl::Seconds(30));
  EXPECT_LE(Elapsed(), gcs_.options.tuning.read_budget);
}

TEST_F(GcsReadTest, BytesGainedRenewTheBudget) {
  for (int i = 0; i < 7; ++i) {
    for (int j = 0; j < 8; ++j) gcs_.Inject(GcsRpc::kReadObject, Kind::kStall);
    gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kUnavailable, 1);
  }
  const absl::StatusOr<std::string> read = Read();
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes_);
  EXPECT_GT(Elapsed(), 2 * gcs_.options.tuning.read_budget);
}

TEST_F(GcsReadTest, DeadlineEndsAStalledRead) {
  gcs_.options.tuning.first_byte = absl::Hours(1);
  gcs_.Restart();
  gcs_.Inject(GcsRpc::kReadObject, Kind::kStall);
  ReadOptions options;
  options.deadline = gcs_.clock.Now() + absl::Seconds(2);
  EXPECT_EQ(CodeOf(Read(options)), Code::kDeadlineExceeded);
  EXPECT_LT(Elapsed(), absl::Seconds(60));
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kReadObject), 1u);
}

TEST_F(GcsReadTest, NoTimeForAnotherAttemptIsDeadlineExceeded) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kResourceExhausted);
  ReadOptions options;
  options.deadline = gcs_.clock.Now() + absl::Milliseconds(500);
  const absl::StatusOr<std::string> read = Read(options);
  EXPECT_EQ(CodeOf(read), Code::kDeadlineExceeded);
  EXPECT_NE(read.status().ToString().find("injected"), std::string::npos) << "must name the cause";
}

TEST_F(GcsReadTest, CancellationEndsAStalledRead) {
  std::stop_source stop;
  gcs_.while_stalled = [&] { stop.request_stop(); };
  gcs_.Inject(GcsRpc::kReadObject, Kind::kStall, Code::kOk, 1);
  ReadOptions options;
  options.cancellation = stop.get_token();
  EXPECT_EQ(CodeOf(Read(options)), Code::kCancelled);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kReadObject), 1u);
}

TEST_F(GcsReadTest, FrozenChannelIsLeftAlone) {
  gcs_.fake->Freeze("2");
  for (int i = 0; i < 40; ++i) {
    const absl::StatusOr<std::string> read = gcs_.ReadRange("a/object", 0, 10);
    ASSERT_OK(read);
    EXPECT_EQ(*read, bytes_.substr(0, 10));
  }
  size_t on_frozen = 0;
  for (const FakeCallRecord& call : gcs_.fake->calls()) on_frozen += call.connection == "2" ? 1 : 0;
  EXPECT_EQ(on_frozen, 1u);
}

TEST_F(GcsReadTest, ErrorNamesTheObjectAndTheRange) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kError, Code::kPermissionDenied);
  const absl::Status status = gcs_.ReadRange("a/object", 7, 9).status();
  EXPECT_EQ(status.message(), "read gs://bucket/base/a/object [7, +9): injected");
}

TEST_F(GcsReadTest, TimeToFirstByteIsCounted) {
  gcs_.Inject(GcsRpc::kReadObject, Kind::kStall);
  gcs_.Inject(GcsRpc::kReadObject, Kind::kSlow);  // One tick of the fixture's clock.
  ASSERT_OK(Read());
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_first_bytes_total"), 1u);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_first_byte_microseconds_total"), 1'000'000u)
      << "of the attempt that brought it";
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_attempts_total", {{"outcome", "OK"}}), 1u);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_attempts_total", {{"outcome", "UNAVAILABLE"}}), 1u);
}

}  // namespace
}  // namespace peerchunk::test
