#include "storage/gcs_core/session_journal.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "tests/support/gcs/gcs_fixture.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;
using Kind = GcsFault::Kind;

UploadRecord Plan(const std::string& object = "base/a/object") {
  UploadRecord plan;
  plan.object = object;
  plan.size = 100;
  plan.fingerprint = "crc32c:1";
  plan.part_bytes = 40;
  plan.id = "11111111-0000-4000-8000-000000000001";
  plan.sessions.resize(3);
  return plan;
}

class SessionJournalTest : public testing::Test {
 protected:
  std::unique_ptr<SessionJournal> Open() {
    absl::StatusOr<std::unique_ptr<SessionJournal>> journal =
        SessionJournal::Open(folder_.PathOf("sessions"), "bucket", clock_);
    EXPECT_OK(journal);
    return *std::move(journal);
  }
  std::vector<std::string> Files() {
    return *folder_.folder().OpenAt("sessions", O_RDONLY)->List();
  }

  const TempDir folder_;
  SimulatedClock clock_;
};

TEST_F(SessionJournalTest, RecordIsFoundByTheNextProcess) {
  Open()->Begin(Plan())->SetSession(1, "upload-1");
  const auto journal = Open();
  UploadRecord other_id = Plan();
  other_id.id = "22222222-0000-4000-8000-000000000002";
  const auto claim = journal->Begin(other_id);
  EXPECT_TRUE(claim->resumed());
  EXPECT_EQ(claim->record().id, Plan().id);
  EXPECT_EQ(claim->record().sessions, (std::vector<std::string>{"", "upload-1", ""}));
}

TEST_F(SessionJournalTest, RecordOfOtherContentIsNotUsed) {
  Open()->Begin(Plan())->SetSession(1, "upload-1");
  UploadRecord other = Plan();
  other.fingerprint = "crc32c:2";
  EXPECT_FALSE(Open()->Begin(other)->resumed());
  other = Plan();
  other.size = 101;
  EXPECT_FALSE(Open()->Begin(other)->resumed());
  EXPECT_FALSE(Open()->Begin(Plan("base/a/other"))->resumed());
}

TEST_F(SessionJournalTest, DroppedRecordIsGone) {
  {
    const auto journal = Open();
    const auto claim = journal->Begin(Plan());
    claim->SetSession(0, "upload-0");
    EXPECT_EQ(Files().size(), 1u);
    claim->Drop();
  }
  EXPECT_TRUE(Files().empty());
  EXPECT_FALSE(Open()->Begin(Plan())->resumed());
}

TEST_F(SessionJournalTest, TwoUploadsOfOneObjectDoNotShareSessions) {
  const auto journal = Open();
  const auto first = journal->Begin(Plan());
  first->SetSession(0, "upload-0");
  const auto second = journal->Begin(Plan());
  EXPECT_FALSE(second->resumed());
  second->SetSession(0, "other");
  EXPECT_EQ(first->record().sessions[0], "upload-0");
}

TEST_F(SessionJournalTest, WithoutAFolderItLastsAsLongAsTheProcess) {
  const auto journal = SessionJournal::Open("", "bucket", clock_);
  ASSERT_OK(journal);
  (*journal)->Begin(Plan())->SetSession(2, "upload-2");
  EXPECT_TRUE((*journal)->Begin(Plan())->resumed());
}

TEST_F(SessionJournalTest, DamagedAndForeignRecordsAreDropped) {
  Open()->Begin(Plan())->SetSession(0, "upload-0");
  const std::string name = Files().at(0);
  const std::string good = folder_.Read("sessions/" + name);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), good.substr(0, good.size() / 2),
        with("\"size\": 100", "\"size\": -1"), with("\"size\": 100", "\"size\": \"x\""),
        with("\"part_bytes\": 40", "\"part_bytes\": 0"),
        with("\"part_bytes\": 40", "\"part_bytes\": 4"), with("\"upload-0\"", "7"),
        with("\"id\"", "\"no\"")}) {
    folder_.Write("sessions/" + name, text);
    EXPECT_FALSE(Open()->Begin(Plan())->resumed()) << text;
  }
  folder_.Write("sessions/" + name, with("\"bucket\": \"bucket\"", "\"bucket\": \"other\""));
  EXPECT_FALSE(Open()->Begin(Plan())->resumed());
  folder_.Write("sessions/unrelated", "x");
  Open();
  EXPECT_EQ(folder_.Read("sessions/unrelated"), "x");
}

TEST_F(SessionJournalTest, RecordOlderThanTheServersMemoryIsOnlyCleanedUpAfter) {
  Open()->Begin(Plan())->SetSession(0, "upload-0");
  clock_.Advance(absl::Hours(24 * 7 - 1));
  EXPECT_TRUE(Open()->Begin(Plan())->resumed());
  clock_.Advance(absl::Hours(2));
  const auto journal = Open();
  ASSERT_EQ(journal->Left().size(), 1u);
  EXPECT_TRUE(journal->IsOld(journal->Left()[0]));
  const auto claim = journal->Begin(Plan());
  EXPECT_FALSE(claim->resumed());
  ASSERT_TRUE(claim->superseded());
  EXPECT_EQ(claim->superseded()->sessions[0], "upload-0");
}

TEST_F(SessionJournalTest, OldRecordOfAnotherBucketIsDropped) {
  Open()->Begin(Plan())->SetSession(0, "upload-0");
  const auto open_other = [&] {
    return SessionJournal::Open(folder_.PathOf("sessions"), "b", clock_);
  };
  clock_.Advance(absl::Hours(24 * 7 - 1));
  EXPECT_TRUE((*open_other())->Left().empty());
  EXPECT_EQ(Files().size(), 1u);
  clock_.Advance(absl::Hours(2));
  EXPECT_OK(open_other());
  EXPECT_TRUE(Files().empty());
}

TEST_F(SessionJournalTest, WhatIsLeftIsWhatNoUploadHolds) {
  for (const bool with_folder : {false, true}) {
    auto opened =
        SessionJournal::Open(with_folder ? folder_.PathOf("sessions") : "", "bucket", clock_);
    ASSERT_OK(opened);
    const std::unique_ptr<SessionJournal> journal = *std::move(opened);
    {
      const auto claim = journal->Begin(Plan());
      claim->SetSession(0, "upload-0");
      EXPECT_TRUE(journal->Left().empty());
      EXPECT_EQ(journal->Take(Plan().object), nullptr);
    }
    ASSERT_EQ(journal->Left().size(), 1u);
    EXPECT_EQ(journal->Left()[0].id, Plan().id);
    EXPECT_EQ(journal->Take("base/a/other"), nullptr);
    journal->Take(Plan().object)->Drop();
    EXPECT_TRUE(journal->Left().empty());
    EXPECT_EQ(journal->Take(Plan().object), nullptr);
    EXPECT_FALSE(journal->Begin(Plan())->resumed()) << "and nobody holds it";
  }
}

TEST_F(SessionJournalTest, AbandonedRecordIsKeptButNotGoneOnWith) {
  Open()->Begin(Plan())->Abandon();
  const auto journal = Open();
  ASSERT_EQ(journal->Left().size(), 1u);
  EXPECT_EQ(journal->Left()[0].id, Plan().id);
  EXPECT_FALSE(journal->Begin(Plan())->resumed());
}

TEST_F(SessionJournalTest, FolderMustBeAbsoluteAndAFolder) {
  EXPECT_EQ(CodeOf(SessionJournal::Open("relative", "bucket", clock_)), Code::kInvalidArgument);
  EXPECT_FALSE(SessionJournal::Open(folder_.Write("file", ""), "bucket", clock_).ok());
}

// --- What the journal is for
// -------------------------------------------------------------------------

class GcsRestartTest : public testing::Test {
 protected:
  // An upload that gives up on a dead network, and a process that dies then: nobody tells the
  // server, and nothing is left in memory.
  void PutAndDie(const std::string& bytes) {
    EXPECT_EQ(CodeOf(gcs_.Put("a/object", bytes, CreateOnly(bytes))), Code::kUnavailable);
    gcs_.fake->ForgetFaults();
    gcs_.Restart();
  }
  // More than it takes for an upload to give up.
  void StallFrom(GcsRpc rpc) {
    for (int i = 0; i < 100; ++i) gcs_.Inject(rpc, Kind::kStall);
  }
  static WriteOptions CreateOnly(const std::string& bytes) {
    WriteOptions options;
    options.if_absent = true;
    options.crc32c = Crc32c(bytes);
    return options;
  }
  void ExpectFinished(const std::string& bytes) {
    const absl::StatusOr<ObjectStat> stat = gcs_.Put("a/object", bytes, CreateOnly(bytes));
    ASSERT_OK(stat);
    EXPECT_EQ(stat->crc32c, Crc32c(bytes));
    EXPECT_TRUE(gcs_.fake->Bytes("base/a/object") == bytes);
    EXPECT_EQ(gcs_.fake->Names(), std::vector<std::string>{"base/a/object"});
    EXPECT_EQ(folder_.folder().List()->size(), 0u) << "the record has done its work";
    EXPECT_TRUE(gcs_.fake->violations().empty());
  }

  const TempDir folder_;
  GcsFixture gcs_{{}, Tuning(), folder_.path()};
  static GcsTuning Tuning() {
    GcsTuning tuning = SmallGcsTuning();
    tuning.parallel_bytes = 16 * kMiB;
    return tuning;
  }
};

TEST_F(GcsRestartTest, SessionGoesOnFromWhatTheServerHas) {
  const std::string bytes = SampleBytes(15 * kMiB + 5, 1);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kNone);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kNone);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
  StallFrom(GcsRpc::kQueryWriteStatus);
  PutAndDie(bytes);
  EXPECT_EQ(gcs_.fake->open_sessions(), 1u);
  const uint64_t sent = gcs_.CounterOf("peerchunk_gcs_written_bytes_total");
  ExpectFinished(bytes);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 1u);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_written_bytes_total") - sent, bytes.size() - 10 * kMiB);
}

TEST_F(GcsRestartTest, FinishedPartsAreNotSentAgain) {
  const std::string bytes = SampleBytes(20 * kMiB + 5, 2);
  StallFrom(GcsRpc::kComposeObject);
  PutAndDie(bytes);
  const uint64_t sent = gcs_.CounterOf("peerchunk_gcs_written_bytes_total");
  EXPECT_EQ(sent, bytes.size());
  ExpectFinished(bytes);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_written_bytes_total"), sent);
}

TEST_F(GcsRestartTest, ComposedButNotToldIsASuccess) {
  const std::string bytes = SampleBytes(20 * kMiB + 5, 3);
  gcs_.Inject(GcsRpc::kComposeObject, Kind::kLostAnswer);
  gcs_.Inject(GcsRpc::kComposeObject, Kind::kNone);
  gcs_.Inject(GcsRpc::kGetObject, Kind::kNone);
  StallFrom(GcsRpc::kGetObject);
  PutAndDie(bytes);
  ExpectFinished(bytes);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kComposeObject), 2u);
}

TEST_F(GcsRestartTest, SessionsThatTheServerForgotBeginAgain) {
  const std::string bytes = SampleBytes(15 * kMiB, 4);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
  StallFrom(GcsRpc::kQueryWriteStatus);
  PutAndDie(bytes);
  gcs_.fake->DropSessions();
  ExpectFinished(bytes);
}

TEST_F(GcsRestartTest, OtherContentUnderTheSameNameStartsAnew) {
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
  StallFrom(GcsRpc::kQueryWriteStatus);
  PutAndDie(SampleBytes(15 * kMiB, 5));
  ExpectFinished(SampleBytes(15 * kMiB, 6));
}

TEST_F(GcsRestartTest, PartsOfOtherContentAreCleanedUp) {
  StallFrom(GcsRpc::kComposeObject);
  PutAndDie(SampleBytes(20 * kMiB, 5));
  ExpectFinished(SampleBytes(20 * kMiB, 6));
}

// What a session will make, and under which condition, was said when it began.
TEST_F(GcsRestartTest, SameBytesWithOtherMetadataStartAnew) {
  const std::string bytes = SampleBytes(15 * kMiB, 5);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
  StallFrom(GcsRpc::kQueryWriteStatus);
  WriteOptions options = CreateOnly(bytes);
  options.metadata = {{"version", "1"}};
  EXPECT_EQ(CodeOf(gcs_.Put("a/object", bytes, options)), Code::kUnavailable);
  gcs_.fake->ForgetFaults();
  gcs_.Restart();
  options.metadata = {{"version", "2"}};
  const absl::StatusOr<ObjectStat> stat = gcs_.Put("a/object", bytes, options);
  ASSERT_OK(stat);
  EXPECT_EQ(stat->metadata, options.metadata);
  EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
}

TEST_F(GcsRestartTest, SameBytesUnderAnotherConditionStartAnew) {
  const std::string bytes = SampleBytes(15 * kMiB, 5);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
  StallFrom(GcsRpc::kQueryWriteStatus);
  PutAndDie(bytes);
  gcs_.fake->Seed("base/a/object", "old");
  WriteOptions options = CreateOnly(bytes);
  options.if_absent = false;
  options.if_version = std::to_string(gcs_.fake->Find("base/a/object")->generation);
  const uint64_t sent = gcs_.CounterOf("peerchunk_gcs_written_bytes_total");
  EXPECT_OK(gcs_.Put("a/object", bytes, options));
  EXPECT_TRUE(gcs_.fake->Bytes("base/a/object") == bytes);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_written_bytes_total") - sent, bytes.size())
      << "the old session could only be refused in the end";
  EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
}

// As a node stops that will come back.
TEST_F(GcsRestartTest, SuspendedUploadGoesOnWhereItWas) {
  for (const uint64_t size : {15 * kMiB + 5, 20 * kMiB + 5}) {
    const std::string bytes = SampleBytes(size, size);
    std::stop_source suspend, cancel;
    gcs_.while_stalled = [&] {
      suspend.request_stop();
      cancel.request_stop();
    };
    for (int i = 0; i < 2; ++i) gcs_.Inject(GcsRpc::kWriteObject, Kind::kNone);
    gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall);
    WriteOptions options = CreateOnly(bytes);
    options.cancellation = cancel.get_token();
    options.suspension = suspend.get_token();
    EXPECT_EQ(CodeOf(gcs_.Put("a/object", bytes, options)), Code::kCancelled);
    gcs_.while_stalled = nullptr;
    gcs_.Restart();
    EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kCancelResumableWrite), 0u);
    EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kDeleteObject), 0u);
    const uint64_t sent = gcs_.CounterOf("peerchunk_gcs_written_bytes_total");
    ExpectFinished(bytes);
    EXPECT_LE(gcs_.CounterOf("peerchunk_gcs_written_bytes_total") - sent,
              bytes.size() - (size > 16 * kMiB ? 2 * kMiB : 8 * kMiB));
    if (size < 16 * kMiB) {
      EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 1u);
    }
    gcs_.fake->Erase("base/a/object");
  }
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite), 1u + 21u);
}

TEST_F(GcsRestartTest, SessionsThatNoLaneTookAreCancelledToo) {
  const std::string bytes = SampleBytes(20 * kMiB, 8);
  gcs_.lanes = 1;
  gcs_.Restart();
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kNone);
  gcs_.Inject(GcsRpc::kWriteObject, Kind::kError);
  StallFrom(GcsRpc::kQueryWriteStatus);
  PutAndDie(bytes);
  EXPECT_EQ(gcs_.fake->open_sessions(), 1u) << "of the second part";
  gcs_.Inject(GcsRpc::kQueryWriteStatus, Kind::kError, Code::kPermissionDenied);
  EXPECT_EQ(CodeOf(gcs_.Put("a/object", bytes, CreateOnly(bytes))), Code::kPermissionDenied);
  EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
  EXPECT_TRUE(gcs_.fake->Names().empty());
}

TEST_F(GcsRestartTest, FileIsKnownAgainWithoutAPromisedChecksum) {
  for (const bool touched : {false, true}) {
    const TempDir files;
    const std::string bytes = SampleBytes(15 * kMiB, 9);
    const std::string path = files.Write("file", bytes);
    WriteOptions options;
    options.if_absent = true;
    gcs_.Inject(GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 1);
    StallFrom(GcsRpc::kQueryWriteStatus);
    EXPECT_EQ(CodeOf(gcs_.Open("a/object")->StoreFile(path, options)), Code::kUnavailable);
    gcs_.fake->ForgetFaults();
    gcs_.Restart();
    const timespec times[2] = {{1, 0}, {1, 0}};
    if (touched) {
      ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    }
    const size_t starts = gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite);
    EXPECT_OK(gcs_.Open("a/object")->StoreFile(path, options));
    EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kStartResumableWrite) - starts, touched ? 1u : 0u);
    EXPECT_TRUE(gcs_.fake->Bytes("base/a/object") == bytes);
    gcs_.fake->Erase("base/a/object");
  }
}

TEST_F(GcsRestartTest, PartThatSomeoneDeletedIsSentAgain) {
  const std::string bytes = SampleBytes(20 * kMiB, 7);
  gcs_.Inject(GcsRpc::kComposeObject, Kind::kStall);
  bool erased = false;
  gcs_.while_stalled = [&] {
    if (!std::exchange(erased, true)) gcs_.fake->Erase(gcs_.fake->Names().front());
  };
  EXPECT_EQ(CodeOf(gcs_.Put("a/object", bytes, CreateOnly(bytes))), Code::kUnavailable);
  EXPECT_TRUE(gcs_.fake->Names().empty());
  ExpectFinished(bytes);
}

}  // namespace
}  // namespace peerchunk::test
