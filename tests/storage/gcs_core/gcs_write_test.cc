#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "tests/storage/gcs_core/gcs_write_fixture.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;
using Kind = GcsFault::Kind;

TEST_F(GcsWriteTest, SmallObjectTakesOneStream) {
  ExpectStored(Put(small_), small_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kWriteObject), 1u);
  EXPECT_EQ(gcs_.fake->calls().size(), 1u);
}

TEST_F(GcsWriteTest, MediumObjectTakesOneSession) {
  ExpectStored(Put(medium_), medium_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 1u);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kComposeObject), 0u);
}

TEST_F(GcsWriteTest, LargeObjectTakesPartsAndOneCompose) {
  ExpectStored(Put(large_), large_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 10u);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kComposeObject), 1u);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kDeleteObject), 10u);
}

TEST_F(GcsWriteTest, PartsAreAtMostThirtyTwo) {
  const std::string bytes = SampleBytes(40 * kMiB, 4);
  ExpectStored(Put(bytes), bytes);
  EXPECT_LE(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 32u);
}

TEST_F(GcsWriteTest, PartsLieWhereNoBuildIsListed) {
  // The compose never succeeds, so the parts can be seen.
  gcs_.Inject(GcsRpc::kComposeObject, Kind::kStall);
  std::vector<std::string> names;
  gcs_.while_stalled = [&] { names = gcs_.fake->Names(); };
  ExpectStored(Put(large_), large_);
  ASSERT_EQ(names.size(), 10u);
  for (const std::string& name : names) EXPECT_EQ(name.find("base/.peerchunk/parts/"), 0u) << name;
  EXPECT_EQ(CodeOf(gcs_.storage->OpenBlob(".peerchunk/parts/x")), Code::kInvalidArgument);
  EXPECT_EQ(CodeOf(gcs_.storage->DeleteObjectsWithPrefix(".peerchunk/", {})),
            Code::kInvalidArgument);
}

TEST_F(GcsWriteTest, MetadataGoesWithEveryWayOfWriting) {
  WriteOptions options;
  options.metadata = {{"peerchunk-version", "3"}};
  for (const std::string& bytes : {small_, medium_, large_}) {
    const absl::StatusOr<ObjectStat> stat = Put(bytes, options);
    ExpectStored(stat, bytes);
    EXPECT_EQ(stat->metadata, options.metadata);
    EXPECT_EQ(gcs_.Open("a/object")->Stat({})->metadata, options.metadata);
  }
}

// --- What each error asks of a resumable write
// -----------------------------------------------------

class GcsWriteAgainTest : public GcsWriteTest, public testing::WithParamInterface<Code> {};

TEST_P(GcsWriteAgainTest, SessionIsAskedAndGoesOn) {
  const auto busy = gcs_.KeepOthersBusy();
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, GetParam(), 1);
  ExpectStored(Put(medium_), medium_);
  std::vector<FakeCallRecord> calls;
  for (const FakeCallRecord& call : gcs_.fake->calls()) {
    if (call.rpc != GcsRpc::kGetObject) calls.push_back(call);
  }
  ASSERT_EQ(calls.size(), 4u);  // Start, write, query, write.
  EXPECT_EQ(calls[2].rpc, GcsRpc::kQueryWriteStatus);
  EXPECT_NE(calls[1].connection, calls[2].connection);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_write_resumes_total"), 1u);
  EXPECT_LE(gcs_.CounterOf("peerchunk_gcs_written_bytes_total"), medium_.size() + 2 * kMiB);
}

TEST_P(GcsWriteAgainTest, OneShotIsSentAgainWithItsToken) {
  const auto busy = gcs_.KeepOthersBusy();
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, GetParam());
  ExpectStored(Put(small_), small_);
  const std::vector<FakeCallRecord> calls = gcs_.fake->calls();
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].token, calls[1].token);
  EXPECT_NE(calls[0].connection, calls[1].connection);
}

TEST_P(GcsWriteAgainTest, LostAnswersAreNoFailures) {
  gcs_.Inject(GcsRpc::kStartResumableWrite, Kind::kLostAnswer, GetParam());
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kLostAnswer, GetParam());
  gcs_.Inject(GcsRpc::kQueryWriteStatus, Kind::kLostAnswer, GetParam());
  ExpectStored(Put(medium_), medium_);
}

TEST_P(GcsWriteAgainTest, ComposeWithALostAnswerIsFound) {
  gcs_.Inject(GcsRpc::kComposeObject, Kind::kLostAnswer, GetParam());
  ExpectStored(Put(large_), large_);
}

INSTANTIATE_TEST_SUITE_P(Codes, GcsWriteAgainTest,
                         testing::Values(Code::kUnavailable, Code::kInternal,
                                         Code::kDeadlineExceeded, Code::kUnknown, Code::kAborted,
                                         Code::kResourceExhausted),
                         [](const auto& info) { return std::string(StatusCodeName(info.param)); });

TEST_F(GcsWriteTest, StallsAreCutEverywhere) {
  gcs_.Inject(GcsRpc::kStartResumableWrite, Kind::kStall);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
  gcs_.Inject(GcsRpc::kQueryWriteStatus, Kind::kStall);
  ExpectStored(Put(medium_), medium_);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_stalls_total", {{"reason", "write"}}), 1u);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_stalls_total", {{"reason", "answer"}}), 2u);
}

TEST_F(GcsWriteTest, TooMuchAtOnceAndConflictsWaitAtLeastASecond) {
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, Code::kResourceExhausted, 1);
  ExpectStored(Put(medium_), medium_);
  EXPECT_GE(Elapsed(), absl::Seconds(1));
  for (const auto& [bytes, rpc, after] :
       {std::tuple{small_, GcsRpc::kWriteObject, 0}, std::tuple{medium_, GcsRpc::kWriteObject, 1},
        std::tuple{large_, GcsRpc::kComposeObject, 0}}) {
    const absl::Time before = gcs_.clock.Now();
    gcs_.fake->Erase("base/a/object");
    gcs_.Inject(rpc, Kind::kError, Code::kAborted, after);
    ExpectStored(Put(bytes), bytes);
    EXPECT_GE(gcs_.clock.Now() - before, absl::Seconds(1));
  }
}

// The deadline, and nothing else, ends these.
TEST_F(GcsWriteTest, DeadlineEndsAStalledWrite) {
  gcs_.options.tuning.write_stall = gcs_.options.tuning.answer = absl::Hours(1);
  gcs_.options.tuning.write_answer = absl::Hours(1);
  gcs_.Restart();
  for (const auto& [bytes, rpc] :
       {std::pair{small_, GcsRpc::kWriteObject}, std::pair{medium_, GcsRpc::kStartResumableWrite},
        std::pair{medium_, GcsRpc::kWriteObject}, std::pair{large_, GcsRpc::kWriteObject},
        std::pair{large_, GcsRpc::kComposeObject}}) {
    gcs_.Inject(rpc, Kind::kStall);
    WriteOptions options = CreateOnly();
    options.deadline = gcs_.clock.Now() + absl::Seconds(5);
    EXPECT_EQ(CodeOf(Put(bytes, options)), Code::kDeadlineExceeded);
    EXPECT_LT(gcs_.clock.Now(), options.deadline + absl::Minutes(1));
    EXPECT_FALSE(gcs_.fake->Find("base/a/object").has_value());
  }
}

TEST_F(GcsWriteTest, WaitsAtTheRateLimitAreNotCountedAgainstTheBudget) {
  gcs_.bytes_per_second = kKiB;
  gcs_.Restart();
  for (const std::string& bytes : {small_, medium_}) {
    gcs_.fake->Erase("base/a/object");
    gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, Code::kUnavailable, 0);
    const absl::Time before = gcs_.clock.Now();
    ExpectStored(Put(bytes), bytes);
    EXPECT_GT(gcs_.clock.Now() - before, 2 * gcs_.options.tuning.write_budget);
  }
}

TEST_F(GcsWriteTest, SessionLostTwiceBeginsAgain) {
  for (int i = 0; i < 2; ++i) gcs_.Inject(GcsRpc::kWriteObject, Kind::kSessionGone);
  ExpectStored(Put(medium_), medium_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 3u);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_session_restarts_total"), 2u);
}

TEST_F(GcsWriteTest, SessionLostThriceFails) {
  for (int i = 0; i < 3; ++i) gcs_.Inject(GcsRpc::kWriteObject, Kind::kSessionGone);
  EXPECT_EQ(CodeOf(Put(medium_)), Code::kUnavailable);
  ExpectNothingStored();
}

TEST_F(GcsWriteTest, SessionLostAfterItsLastAnswerWasLostIsASuccess) {
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kLostAnswer);
  gcs_.Inject(GcsRpc::kQueryWriteStatus, Kind::kError, Code::kNotFound);
  ExpectStored(Put(medium_), medium_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 2u);
}

TEST_F(GcsWriteTest, OutOfRangeOnceIsAskedAndGoesOn) {
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, Code::kOutOfRange, 1);
  ExpectStored(Put(medium_), medium_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 1u);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kQueryWriteStatus), 1u);
}

TEST_F(GcsWriteTest, OutOfRangeTwiceStartsAgain) {
  for (int i = 0; i < 2; ++i) gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, Code::kOutOfRange);
  ExpectStored(Put(medium_), medium_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 2u);
}

TEST_F(GcsWriteTest, OutOfRangeThriceFails) {
  for (int i = 0; i < 3; ++i) gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, Code::kOutOfRange);
  EXPECT_EQ(CodeOf(Put(medium_)), Code::kOutOfRange);
  ExpectNothingStored();
  EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
}

TEST_F(GcsWriteTest, ObjectThatIsThereIsAlreadyExistsWhateverItHolds) {
  for (const std::string& bytes : {small_, medium_, large_}) {
    gcs_.fake->Seed("base/a/object", bytes);
    EXPECT_EQ(CodeOf(Put(bytes)), Code::kAlreadyExists);
    gcs_.fake->Seed("base/a/object", "other");
    EXPECT_EQ(CodeOf(Put(bytes)), Code::kAlreadyExists);
  }
}

TEST_F(GcsWriteTest, OneShotWithALostAnswerIsASuccess) {
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kLostAnswer);
  ExpectStored(Put(small_), small_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kWriteObject), 2u);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kGetObject), 1u);
}

TEST_F(GcsWriteTest, OneShotWithALostAnswerAndAnotherWriterIsAlreadyExists) {
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall);
  gcs_.while_stalled = [&] { gcs_.fake->Seed("base/a/object", "someone else's"); };
  EXPECT_EQ(CodeOf(Put(small_)), Code::kAlreadyExists);
}

// As large as ours, after an attempt of ours that may have succeeded.
TEST_F(GcsWriteTest, AnotherWritersObjectOfTheSameSizeIsAlreadyExists) {
  for (const auto& [bytes, rpc] :
       {std::pair{small_, GcsRpc::kWriteObject}, std::pair{medium_, GcsRpc::kWriteObject},
        std::pair{large_, GcsRpc::kComposeObject}}) {
    const std::string theirs = SampleBytes(bytes.size(), 99);
    gcs_.Inject(rpc, Kind::kStall);
    gcs_.while_stalled = [&] { gcs_.fake->Seed("base/a/object", theirs); };
    EXPECT_EQ(CodeOf(Put(bytes)), Code::kAlreadyExists);
    EXPECT_TRUE(gcs_.fake->Bytes("base/a/object") == theirs);
    EXPECT_EQ(gcs_.fake->Names(), std::vector<std::string>{"base/a/object"});
    EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
    gcs_.fake->Erase("base/a/object");
  }
}

TEST_F(GcsWriteTest, VersionThatWasReplacedMeanwhileLeavesNoSession) {
  for (const std::string& bytes : {medium_, large_}) {
    gcs_.fake->Seed("base/a/object", "old");
    WriteOptions options;
    options.if_version = std::to_string(gcs_.fake->Find("base/a/object")->generation);
    gcs_.Inject(bytes == medium_ ? GcsRpc::kWriteObject : GcsRpc::kComposeObject, Kind::kStall);
    gcs_.while_stalled = [&] { gcs_.fake->Seed("base/a/object", "new"); };
    EXPECT_EQ(CodeOf(Put(bytes, options)), Code::kAborted);
    EXPECT_EQ(gcs_.fake->Names(), std::vector<std::string>{"base/a/object"});
    EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
  }
}

TEST_F(GcsWriteTest, ReplacingAVersionWithALostAnswerIsASuccess) {
  gcs_.fake->Seed("base/a/object", "old");
  WriteOptions options;
  options.if_version = std::to_string(gcs_.fake->Find("base/a/object")->generation);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kLostAnswer);
  ExpectStored(Put(small_, options), small_);
}

class GcsChecksumCodeTest : public testing::TestWithParam<Code> {
 protected:
  GcsChecksumCodeTest() : gcs_(Options()) {}
  static FakeGcsOptions Options() {
    FakeGcsOptions options;
    options.checksum_code = GetParam();
    return options;
  }
  GcsFixture gcs_;
};

TEST_P(GcsChecksumCodeTest, BytesGarbledOnceAreSentAgain) {
  for (const uint64_t size : {300 * kKiB, 3 * kMiB, 9 * kMiB}) {
    const std::string bytes = SampleBytes(size, size);
    gcs_.Inject(GcsRpc::kWriteObject, Kind::kGarbledUpload);
    const absl::StatusOr<ObjectStat> stat = gcs_.Put("a/object", bytes, CreateOnly());
    ASSERT_OK(stat);
    EXPECT_EQ(stat->crc32c, Crc32c(bytes));
    EXPECT_EQ(gcs_.fake->Names(), std::vector<std::string>{"base/a/object"});
    gcs_.fake->Erase("base/a/object");
  }
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_checksum_mismatches_total"), 3u);
}

TEST_P(GcsChecksumCodeTest, BytesGarbledTwiceAreDataLoss) {
  for (const uint64_t size : {300 * kKiB, 3 * kMiB}) {
    for (int i = 0; i < 2; ++i) gcs_.Inject(GcsRpc::kWriteObject, Kind::kGarbledUpload);
    EXPECT_EQ(CodeOf(gcs_.Put("a/object", SampleBytes(size, 1), CreateOnly())), Code::kDataLoss);
    EXPECT_EQ(gcs_.fake->faults_waiting(), 0u);
    EXPECT_TRUE(gcs_.fake->Names().empty());
    EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Codes, GcsChecksumCodeTest,
                         testing::Values(Code::kInvalidArgument, Code::kDataLoss,
                                         Code::kFailedPrecondition),
                         [](const auto& info) { return std::string(StatusCodeName(info.param)); });

TEST_F(GcsWriteTest, UnauthenticatedIsTriedOnceMore) {
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, Code::kUnauthenticated);
  ExpectStored(Put(medium_), medium_);
  EXPECT_GE(Elapsed(), absl::Seconds(1));
  gcs_.fake->Erase("base/a/object");
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, Code::kUnauthenticated);
  gcs_.Inject(GcsRpc::kQueryWriteStatus, Kind::kError, Code::kUnauthenticated);
  EXPECT_EQ(CodeOf(Put(medium_)), Code::kUnauthenticated);
}

TEST_F(GcsWriteTest, PermissionDeniedFailsAtOnceAndCancelsTheSession) {
  for (const Code code : {Code::kPermissionDenied, Code::kUnimplemented}) {
    gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, code);
    EXPECT_EQ(CodeOf(Put(medium_)), code);
    EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
    ExpectNothingStored();
  }
}

TEST_F(GcsWriteTest, PermissionDeniedForOnePartLeavesNone) {
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kError, Code::kUnavailable, 0);
  gcs_.Inject(GcsRpc::kQueryWriteStatus, Kind::kError, Code::kPermissionDenied);
  EXPECT_EQ(CodeOf(Put(large_)), Code::kPermissionDenied);
  EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
  ExpectNothingStored();
}

TEST_F(GcsWriteTest, CallersCancelCancelsTheSessions) {
  for (const std::string& bytes : {medium_, large_}) {
    std::stop_source stop;
    gcs_.while_stalled = [&] { stop.request_stop(); };
    gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall);
    WriteOptions options = CreateOnly();
    options.cancellation = stop.get_token();
    EXPECT_EQ(CodeOf(Put(bytes, options)), Code::kCancelled);
    EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
    ExpectNothingStored();
  }
}

// The object is there and confirmed: nobody waits for its parts to go.
TEST_F(GcsWriteTest, CallersCancelEndsCleaningUp) {
  std::stop_source stop;
  gcs_.while_stalled = [&] { stop.request_stop(); };
  gcs_.Inject(GcsRpc::kListObjects, Kind::kStall);
  WriteOptions options = CreateOnly();
  options.cancellation = stop.get_token();
  EXPECT_OK(Put(large_, options));
  EXPECT_LT(Elapsed(), absl::Seconds(5));
  EXPECT_GT(gcs_.fake->Names().size(), 1u);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_leftover_parts_total"), 1u);
  // Left for whoever writes this again.
  ExpectStored(Put(large_), large_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kComposeObject), 1u);
}

// --- Idempotency tokens
// ----------------------------------------------------------------------------

class GcsTokenTest : public GcsWriteTest, public testing::WithParamInterface<GcsRpc> {};

TEST_P(GcsTokenTest, AllAttemptsOfARequestCarryTheSame) {
  for (int i = 0; i < 2; ++i) gcs_.Inject(GetParam(), Kind::kError);
  if (GetParam() == GcsRpc::kQueryWriteStatus) gcs_.Inject(GcsRpc::kWriteObject, Kind::kError);
  if (GetParam() != GcsRpc::kWriteObject) {
    ASSERT_OK(Put(medium_));
  }
  gcs_.fake->Erase("base/a/object");
  ASSERT_OK(Put(small_));
  gcs_.fake->Erase("base/a/object");
  ASSERT_OK(Put(large_));
  ASSERT_OK(gcs_.Read("a/object"));
  ASSERT_OK(gcs_.storage->DeleteObjectsWithPrefix("a/", {}));
  std::vector<std::string> tokens;
  for (const FakeCallRecord& call : gcs_.fake->calls()) {
    if (call.rpc == GetParam()) tokens.push_back(call.token);
  }
  ASSERT_GE(tokens.size(), 3u);
  EXPECT_EQ(tokens[1], tokens[0]);
  EXPECT_EQ(tokens[2], tokens[0]);
}

INSTANTIATE_TEST_SUITE_P(Rpcs, GcsTokenTest,
                         testing::Values(GcsRpc::kGetObject, GcsRpc::kReadObject,
                                         GcsRpc::kStartResumableWrite, GcsRpc::kQueryWriteStatus,
                                         GcsRpc::kWriteObject, GcsRpc::kComposeObject,
                                         GcsRpc::kDeleteObject, GcsRpc::kListObjects),
                         [](const auto& info) {
                           return "Rpc" + std::to_string(static_cast<int>(info.param));
                         });

// --- What else may go wrong
// ------------------------------------------------------------------------

TEST_F(GcsWriteTest, LessPersistedThanSentIsSentAgain) {
  for (int i = 0; i < 3; ++i) gcs_.Inject(GcsRpc::kWriteObject, Kind::kPersistsLess);
  ExpectStored(Put(medium_), medium_);
  EXPECT_GT(gcs_.CounterOf("peerchunk_gcs_written_bytes_total"), medium_.size());
}

TEST_F(GcsWriteTest, WrongChecksumInTheAnswerIsNeverBelieved) {
  for (const auto& [bytes, rpc] :
       {std::pair{small_, GcsRpc::kWriteObject}, std::pair{large_, GcsRpc::kComposeObject}}) {
    gcs_.Inject(rpc, Kind::kWrongAnswer);
    EXPECT_EQ(CodeOf(Put(bytes)), Code::kDataLoss);
    ExpectNothingStored();
  }
  // A session is tried once more.
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kWrongAnswer);
  ExpectStored(Put(medium_), medium_);
  gcs_.fake->Erase("base/a/object");
  for (int i = 0; i < 2; ++i) gcs_.Inject(GcsRpc::kWriteObject, Kind::kWrongAnswer);
  EXPECT_EQ(CodeOf(Put(medium_)), Code::kDataLoss);
  ExpectNothingStored();
}

TEST_F(GcsWriteTest, AnswerWithoutAChecksumIsCompletedByAsking) {
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kNoChecksum);
  ExpectStored(Put(small_), small_);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kGetObject), 1u);
}

TEST_F(GcsWriteTest, UploadGivesUpAfterItsBudgetWithoutProgress) {
  for (int i = 0; i < 2'000; ++i) gcs_.Inject(GcsRpc::kStartResumableWrite, Kind::kError);
  EXPECT_EQ(CodeOf(Put(medium_)), Code::kUnavailable);
  EXPECT_LE(Elapsed(), gcs_.options.tuning.write_budget);
  EXPECT_GT(Elapsed(), absl::Minutes(3));
  while (gcs_.fake->faults_waiting() > 0) Put(medium_).status().IgnoreError();
}

TEST_F(GcsWriteTest, PersistedProgressRenewsTheBudget) {
  gcs_.options.tuning.parallel_bytes = 64 * kMiB;
  gcs_.options.tuning.write_budget = absl::Minutes(2);
  gcs_.Restart();
  // Every stream brings one message home, then stalls.
  const std::string bytes = SampleBytes(20 * kMiB, 9);
  for (int i = 0; i < 9; ++i) gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
  ExpectStored(Put(bytes), bytes);
  EXPECT_GT(Elapsed(), gcs_.options.tuning.write_budget);
}

}  // namespace
}  // namespace peerchunk::test
