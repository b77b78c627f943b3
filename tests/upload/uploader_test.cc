#include "peerchunk/upload/uploader.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/upload/uploader_fixture.h"

namespace peerchunk::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(UploaderTest, ABuildBecomesDurableAndIsWhole) {
  const TestBuild build = Make(1);
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(StateOf(build), BuildState::kDurable);
  EXPECT_TRUE(Complete(build));
  EXPECT_EQ(VersionInBase(build), "1");
  EXPECT_THAT(durable(), ElementsAre(build.id));
  EXPECT_EQ(Attempts("durable"), 1u);
  EXPECT_EQ(metrics_.CounterValue("peerchunk_uploaded_bytes_total", {{"file", "memfile"}}),
            build.files.at(FileKind::kMemfile).size());
}

TEST_F(UploaderTest, FilesystemOnlyBuildsAreUploaded) {
  const TestBuild build = MakeTestBuild({.memfile_bytes = 0});
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(memory_.Paths().size(), 3u);
}

TEST_F(UploaderTest, ObjectsAreWrittenInTheOrderThatMakesMetadataTheSignOfCompleteness) {
  const TestBuild build = Make(1);
  std::vector<FileKind> order;
  for (const auto& [kind, bytes] : build.files) {
    faults_.AddFault({.call = StorageCall::kWrite,
                      .path = Path(build, kind),
                      .alter_stat = [&order, kind = kind](ObjectStat&) { order.push_back(kind); }});
  }
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  ASSERT_EQ(order.size(), 6u);
  const auto position = [&](FileKind kind) {
    return std::find(order.begin(), order.end(), kind) - order.begin();
  };
  for (const FileKind diff : {FileKind::kMemfile, FileKind::kRootfs}) {
    for (const FileKind later :
         {FileKind::kMemfileHeader, FileKind::kRootfsHeader, FileKind::kSnapfile}) {
      EXPECT_LT(position(diff), position(later));
    }
  }
  EXPECT_EQ(order.back(), FileKind::kMetadata);
}

TEST_F(UploaderTest, FailedAttemptsAreRetriedAndEachIsVisible) {
  const TestBuild build = Make(1);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(build, FileKind::kRootfs),
                    .times = 40,
                    .error = absl::UnavailableError("the base is gone")});
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(Attempts("retry"), 40u);
  EXPECT_EQ(registry_->Find(build.id)->upload_attempts, 40u);
  EXPECT_EQ(faults_.calls(StorageCall::kWrite, Path(build, FileKind::kMemfile)), 1u)
      << "what is confirmed is not sent again";
}

TEST_F(UploaderTest, TheBackoffGrowsToItsLimit) {
  const TestBuild build = Make(1);
  faults_.AddFault(
      {.call = StorageCall::kStat, .times = 60, .error = absl::UnavailableError("planted")});
  Pause(build);
  const absl::Time before = clock_.Now();
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  // 60 waits of 15 s on average, but for the first few: full jitter, which begins at nothing. Less
  // jitter would take longer.
  EXPECT_GT(clock_.Now() - before, absl::Minutes(9));
  EXPECT_LT(clock_.Now() - before, absl::Minutes(18));
}

TEST_F(UploaderTest, NodesThatFailTogetherDoNotComeBackTogether) {
  std::set<absl::Duration> waits;
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    options_.seed = seed;
    const TestBuild build = Make(seed);
    faults_.AddFault(
        {.call = StorageCall::kStat, .times = 10, .error = absl::UnavailableError("planted")});
    Pause(build);
    const absl::Time before = clock_.Now();
    Start();
    EXPECT_THAT(Finish(), IsEmpty());
    waits.insert(clock_.Now() - before);
    uploader_ = nullptr;
  }
  EXPECT_EQ(waits.size(), 4u);
}

TEST_F(UploaderTest, AWriteWhoseAnswerWasLostIsNotRepeated) {
  const TestBuild build = Make(1);
  for (const auto& [kind, bytes] : build.files) {
    faults_.AddFault({.call = StorageCall::kWrite,
                      .path = Path(build, kind),
                      .times = 1,
                      .after_write = true,
                      .error = absl::UnavailableError("connection lost")});
  }
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_TRUE(Complete(build));
  EXPECT_EQ(faults_.calls(StorageCall::kWrite), 6u);
}

TEST_F(UploaderTest, AConfirmationOfOtherBytesIsNotBelieved) {
  const TestBuild build = Make(1);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(build, FileKind::kMemfile),
                    .times = 1,
                    .alter_stat = [](ObjectStat& stat) { stat.crc32c = *stat.crc32c ^ 1; }});
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(build, FileKind::kSnapfile),
                    .times = 1,
                    .alter_stat = [](ObjectStat& stat) { --stat.size; }});
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(Attempts("retry"), 2u);
  EXPECT_TRUE(Complete(build));
}

TEST_F(UploaderTest, BytesSpoiltOnTheWayAreSentAgain) {
  const TestBuild build = Make(1);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(build, FileKind::kMemfile),
                    .times = 2,
                    .error = absl::DataLossError("checksum differs")});
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(Attempts("retry"), 2u);
}

TEST_F(UploaderTest, ACorruptCopyIsFailedAndNotSent) {
  for (const auto& [seed, kind] : std::vector<std::pair<uint32_t, FileKind>>{
           {1, FileKind::kMemfile}, {2, FileKind::kSnapfile}, {3, FileKind::kMetadata}}) {
    const TestBuild build = Make(seed);
    Pause(build);
    ASSERT_OK(dir_.folder().OpenAt("builds/" + Path(build, kind), O_RDWR)->WriteAt(3, "spoilt"));
    Start();
    EXPECT_THAT(Finish(), testing::Contains(build.id));
    EXPECT_EQ(StateOf(build), BuildState::kFailed);
    EXPECT_THAT(ReasonOf(build), HasSubstr("checksum"));
    EXPECT_EQ(memory_.Bytes(Path(build, kind)), std::nullopt);
    EXPECT_EQ(memory_.Bytes(Path(build, FileKind::kMetadata)), std::nullopt);
    ASSERT_OK(registry_->Remove(build.id));
  }
}

TEST_F(UploaderTest, OtherBytesInTheBaseAreLeftAloneAndFail) {
  const TestBuild build = Make(1);
  for (const FileKind kind : {FileKind::kMemfile, FileKind::kRootfsHeader, FileKind::kMetadata}) {
    memory_.Seed(Path(build, kind), "someone else's");
  }
  Pause(build);
  Start();
  for (const FileKind kind : {FileKind::kMemfile, FileKind::kRootfsHeader, FileKind::kMetadata}) {
    EXPECT_THAT(Finish(), ElementsAre(build.id));
    EXPECT_EQ(StateOf(build), BuildState::kFailed);
    EXPECT_THAT(ReasonOf(build), HasSubstr(Path(build, kind)));
    EXPECT_THAT(ReasonOf(build), HasSubstr("retry this build"));
    EXPECT_EQ(memory_.Bytes(Path(build, kind)), "someone else's");
    memory_.Remove(Path(build, kind));
    ASSERT_OK(registry_->Retry(build.id));
    uploader_->Enqueue(build.id);
  }
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_TRUE(Complete(build));
}

TEST_F(UploaderTest, TheSameBytesInTheBaseAreNotSentAgain) {
  const TestBuild build = Make(1);
  for (const auto& [kind, bytes] : build.files) memory_.Seed(Path(build, kind), bytes);
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(faults_.calls(StorageCall::kWrite), 0u);
}

TEST_F(UploaderTest, AStoreThatKnowsNoChecksumsIsReadBack) {
  const TestBuild good = Make(1);
  const TestBuild bad = Make(2);
  MemoryStorageProvider forgetful(clock_, /*knows_crc=*/false);
  Pause(good);
  Start(forgetful);
  EXPECT_THAT(Finish(), IsEmpty());
  uploader_ = nullptr;

  for (const FileKind kind : {FileKind::kRootfs, FileKind::kSnapfile}) {
    std::string other = bad.files.at(kind);
    other[5] = static_cast<char>(other[5] ^ 1);
    forgetful.Seed(Path(bad, kind), other);
  }
  Pause(bad);
  Start(forgetful);
  EXPECT_THAT(Finish(), ElementsAre(bad.id));
  EXPECT_THAT(ReasonOf(bad), HasSubstr(Path(bad, FileKind::kRootfs)));
  forgetful.Remove(Path(bad, FileKind::kRootfs));
  ASSERT_OK(registry_->Retry(bad.id));
  uploader_->Enqueue(bad.id);
  EXPECT_THAT(Finish(), ElementsAre(bad.id));
  EXPECT_THAT(ReasonOf(bad), HasSubstr(Path(bad, FileKind::kSnapfile)));
  uploader_ = nullptr;  // Before its base.
}

TEST_F(UploaderTest, ALimitOfAttemptsFailsTheBuildUntilRetried) {
  options_.max_attempts = 3;
  const TestBuild build = Make(1);
  faults_.AddFault(
      {.call = StorageCall::kWrite, .times = 4, .error = absl::PermissionDeniedError("no access")});
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), ElementsAre(build.id));
  EXPECT_EQ(StateOf(build), BuildState::kFailed);
  EXPECT_THAT(ReasonOf(build), HasSubstr("gave up after 3 attempts"));
  EXPECT_THAT(ReasonOf(build), HasSubstr("no access"));
  EXPECT_EQ(Attempts("failed"), 1u);
  uploader_->Enqueue(build.id);
  EXPECT_THAT(Finish(), ElementsAre(build.id)) << "only a retry leaves FAILED";
  ASSERT_OK(registry_->Retry(build.id));
  uploader_->Enqueue(build.id);
  EXPECT_THAT(Finish(), IsEmpty());
}

TEST_F(UploaderTest, ARestartSendsOnlyWhatIsMissing) {
  const TestBuild build = Make(1);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(build, FileKind::kSnapfile),
                    .times = 1,
                    .stall = true});
  Pause(build);
  Start();
  faults_.AwaitStalled(1);
  Restart();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_TRUE(Complete(build));
  for (const auto& [kind, bytes] : build.files) {
    EXPECT_EQ(faults_.calls(StorageCall::kWrite, Path(build, kind)),
              kind == FileKind::kSnapfile ? 2u : 1u);
  }
  EXPECT_EQ(registry_->Find(build.id)->upload_attempts, 0u) << "a stop is no failure";
}

TEST_F(UploaderTest, ABuildThatIsRemovedMeanwhileIsDropped) {
  const TestBuild build = Make(1);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(build, FileKind::kRootfs),
                    .times = 1,
                    .stall = true});
  Pause(build);
  Start();
  faults_.AwaitStalled(1);
  ASSERT_OK(registry_->Remove(build.id));
  faults_.ClearFaults();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(memory_.Bytes(Path(build, FileKind::kMetadata)), std::nullopt);
  EXPECT_THAT(durable(), IsEmpty());
  uploader_->Enqueue(build.id);
  EXPECT_THAT(Finish(), IsEmpty());
}

TEST_F(UploaderTest, EnqueueingTwiceUploadsOnce) {
  const TestBuild build = Make(1);
  Pause(build);
  faults_.AddFault({.call = StorageCall::kWrite, .times = 1, .stall = true});
  Start();
  faults_.AwaitStalled(1);
  for (int i = 0; i < 5; ++i) uploader_->Enqueue(build.id);
  faults_.ClearFaults();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(faults_.calls(StorageCall::kWrite), 6u);
  EXPECT_EQ(durable().size(), 1u);
}

TEST_F(UploaderTest, WaitIdleGivesUpAtItsDeadline) {
  const TestBuild build = Make(1);
  Pause(build);
  faults_.AddFault({.call = StorageCall::kWrite, .stall = true});
  Start();
  faults_.AwaitStalled(1);
  EXPECT_THAT(uploader_->WaitIdle(clock_.Now() + absl::Seconds(5)), ElementsAre(build.id));
}

TEST_F(UploaderTest, OptionsAreChecked) {
  EXPECT_EQ(CodeOf(Uploader::Start(nullptr, &memory_, options_)),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(Uploader::Start(registry_.get(), nullptr, options_)),
            absl::StatusCode::kInvalidArgument);
  options_.parallel_builds = 0;
  EXPECT_EQ(CodeOf(Uploader::Start(registry_.get(), &memory_, options_)),
            absl::StatusCode::kInvalidArgument);
  options_.parallel_builds = 1;
  options_.max_backoff = absl::ZeroDuration();
  EXPECT_EQ(CodeOf(Uploader::Start(registry_.get(), &memory_, options_)),
            absl::StatusCode::kInvalidArgument);
}

// Ancestors.

TEST_F(UploaderTest, AChildsHeadersWaitForAnAncestorPausedHere) {
  const TestBuild base = Make(1);
  const TestBuild child = Make(2, &base);
  Pause(base);
  Pause(child);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(base, FileKind::kMetadata),
                    .times = 1,
                    .stall = true});
  Start();
  faults_.AwaitStalled(1);
  while (ReasonOf(child).find(base.id.ToString()) == std::string::npos) std::this_thread::yield();
  EXPECT_THAT(ReasonOf(child), HasSubstr("it is UPLOADING here"));
  EXPECT_EQ(StateOf(child), BuildState::kUploading);
  EXPECT_EQ(memory_.Bytes(Path(child, FileKind::kMemfile)), child.files.at(FileKind::kMemfile))
      << "its diffs need not wait";
  EXPECT_EQ(memory_.Bytes(Path(child, FileKind::kMemfileHeader)), std::nullopt);
  EXPECT_EQ(memory_.Bytes(Path(child, FileKind::kRootfsHeader)), std::nullopt);
  faults_.ClearFaults();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_THAT(durable(), ElementsAre(base.id, child.id));
  EXPECT_EQ(registry_->Find(child.id)->upload_attempts, 0u) << "waiting is no failure";
}

TEST_F(UploaderTest, AForeignAncestorIsAskedAboutUntilItIsDurable) {
  const TestBuild base = Make(1);
  const TestBuild child = Make(2, &base);
  int asked = 0;
  options_.ancestor_is_durable = [&](const BuildId& id,
                                     const std::stop_token&) -> absl::StatusOr<bool> {
    EXPECT_EQ(id, base.id);
    EXPECT_EQ(memory_.Bytes(Path(child, FileKind::kMemfileHeader)), std::nullopt);
    ++asked;
    if (asked == 1) return false;
    EXPECT_THAT(ReasonOf(child), HasSubstr(asked == 2 ? "not durable yet" : "source is away"));
    if (asked == 2) return absl::UnavailableError("its source is away");
    return true;
  };
  Pause(child);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(asked, 3);
  const TestBuild sibling = Make(3, &base);
  Pause(sibling);
  uploader_->Enqueue(sibling.id);
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(asked, 3) << "durable is final";
}

TEST_F(UploaderTest, AChildOfALostAncestorIsFailed) {
  const TestBuild base = Make(1);
  const TestBuild child = Make(2, &base);
  options_.ancestor_is_durable = [](const BuildId&,
                                    const std::stop_token&) -> absl::StatusOr<bool> {
    return absl::DataLossError("its source says so");
  };
  Pause(child);
  Start();
  EXPECT_THAT(Finish(), ElementsAre(child.id));
  EXPECT_EQ(StateOf(child), BuildState::kFailed);
  EXPECT_THAT(ReasonOf(child), HasSubstr(base.id.ToString() + " is lost: its source says so"));
}

TEST_F(UploaderTest, WithoutAnyoneToAskTheBaseTellsOfForeignAncestors) {
  const TestBuild base = Make(1);
  const TestBuild child = Make(2, &base);
  Pause(child);
  faults_.AddFault({.call = StorageCall::kStat,
                    .path = Path(base, FileKind::kMetadata),
                    .skip = 3,
                    .times = 1,
                    .stall = true});
  Start();
  faults_.AwaitStalled(1);
  EXPECT_EQ(memory_.Bytes(Path(child, FileKind::kMemfileHeader)), std::nullopt);
  memory_.Seed(Path(base, FileKind::kMetadata), base.files.at(FileKind::kMetadata));
  faults_.ClearFaults();
  EXPECT_THAT(Finish(), IsEmpty());
}

TEST_F(UploaderTest, AChildOfABuildThatWasDiscardedIsFailedUnlessTheBaseHasIt) {
  const TestBuild lost = Make(1);
  const TestBuild kept = Make(2);
  const TestBuild child = Make(3, &lost);
  const TestBuild other = Make(4, &kept);
  for (const TestBuild* build : {&lost, &kept, &child, &other}) Pause(*build);
  ASSERT_OK(registry_->Remove(lost.id));
  ASSERT_OK(registry_->Remove(kept.id));
  memory_.Seed(Path(kept, FileKind::kMetadata), kept.files.at(FileKind::kMetadata));
  for (const bool restarted : {false, true}) {
    if (restarted) {
      Restart();
    } else {
      Start();
    }
    EXPECT_THAT(Finish(), ElementsAre(child.id));
    EXPECT_EQ(StateOf(child), BuildState::kFailed);
    EXPECT_THAT(ReasonOf(child), HasSubstr(lost.id.ToString() + " is lost: its only copy was"));
  }
}

TEST_F(UploaderTest, AQuestionAboutAnAncestorEndsWithTheUploader) {
  const TestBuild base = Make(1);
  const TestBuild child = Make(2, &base);
  std::atomic<int> asked = 0;
  options_.ancestor_is_durable = [&](const BuildId&,
                                     const std::stop_token& stop) -> absl::StatusOr<bool> {
    ++asked;
    while (!stop.stop_requested()) std::this_thread::yield();
    return absl::CancelledError("stopped");
  };
  Pause(child);
  Start();
  while (asked < 1) std::this_thread::yield();
  { const Uploader::Hold hold = uploader_->Stop(child.id); }
  while (asked < 2) std::this_thread::yield();
  uploader_ = nullptr;
  EXPECT_EQ(registry_->Find(child.id)->upload_attempts, 0u);
}

TEST_F(UploaderTest, WhileABuildIsHeldNothingOfItIsWrittenAndThenItGoesOn) {
  const TestBuild held = Make(1);
  const TestBuild other = Make(2);
  faults_.AddFault(
      {.call = StorageCall::kWrite, .path = Path(held, FileKind::kRootfs), .stall = true});
  Pause(held);
  Start();
  faults_.AwaitStalled(1);
  {
    const Uploader::Hold hold = uploader_->Stop(held.id);
    faults_.ClearFaults();
    const uint64_t before = faults_.calls(StorageCall::kWrite);
    ASSERT_OK(registry_->ReplaceMetadata(held.id, "{}"));
    uploader_->Enqueue(held.id);
    Pause(other);
    uploader_->Enqueue(other.id);
    while (StateOf(other) != BuildState::kDurable) std::this_thread::yield();
    EXPECT_EQ(faults_.calls(StorageCall::kWrite), before + 6);
  }
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_EQ(VersionInBase(held), "2");
  {
    const Uploader::Hold hold = uploader_->Stop(held.id);
    ASSERT_OK(registry_->Remove(held.id));
    uploader_->Enqueue(held.id);
  }
  EXPECT_THAT(Finish(), IsEmpty());
}

// Metadata that is replaced.

TEST_F(UploaderTest, NewMetadataOfADurableBuildIsUploaded) {
  TestBuild build = Make(1);
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  for (uint64_t version = 2; version <= 3; ++version) {
    build.files[FileKind::kMetadata] = "{\"v\":" + std::to_string(version) + "}";
    ASSERT_OK(registry_->ReplaceMetadata(build.id, build.files[FileKind::kMetadata]));
    if (version == 2) {
      uploader_->Enqueue(build.id);
    } else {
      Restart();
    }
    EXPECT_THAT(Finish(), IsEmpty());
    EXPECT_TRUE(Complete(build));
    EXPECT_EQ(VersionInBase(build), std::to_string(version));
    EXPECT_EQ(registry_->Find(build.id)->metadata_version_in_base, version);
  }
  EXPECT_EQ(durable().size(), 1u);
  EXPECT_EQ(held_, 3) << "each time, whoever keeps the files is told";
}

TEST_F(UploaderTest, NewMetadataThatIsNotInTheBaseIsNotForgottenOnLeaving) {
  const TestBuild build = Make(1);
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  faults_.AddFault({.call = StorageCall::kWrite, .error = absl::UnavailableError("gone")});
  ASSERT_OK(registry_->ReplaceMetadata(build.id, "{\"v\":2}"));
  uploader_->Enqueue(build.id);
  EXPECT_THAT(uploader_->WaitIdle(clock_.Now() + absl::Seconds(5)), ElementsAre(build.id));
  faults_.ClearFaults();
  EXPECT_THAT(Finish(), IsEmpty());
}

TEST_F(UploaderTest, MetadataReplacedDuringTheUploadIsNeverAheadOfTheRest) {
  TestBuild build = Make(1);
  Pause(build);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(build, FileKind::kRootfsHeader),
                    .times = 1,
                    .stall = true});
  Start();
  faults_.AwaitStalled(1);
  build.files[FileKind::kMetadata] = "{\"v\":2}";
  ASSERT_OK(registry_->ReplaceMetadata(build.id, build.files[FileKind::kMetadata]));
  uploader_->Enqueue(build.id);
  EXPECT_EQ(memory_.Bytes(Path(build, FileKind::kMetadata)), std::nullopt);
  faults_.ClearFaults();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_TRUE(Complete(build));
  EXPECT_EQ(VersionInBase(build), "2");
}

TEST_F(UploaderTest, MetadataReplacedWhileItIsWrittenFollows) {
  TestBuild build = Make(1);
  Pause(build);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(build, FileKind::kMetadata),
                    .times = 1,
                    .after_write = true,
                    .stall = true});
  Start();
  faults_.AwaitStalled(1);
  build.files[FileKind::kMetadata] = "{\"v\":2}";
  ASSERT_OK(registry_->ReplaceMetadata(build.id, build.files[FileKind::kMetadata]));
  faults_.ClearFaults();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_TRUE(Complete(build));
  EXPECT_EQ(registry_->Find(build.id)->metadata_version_in_base, 2u);
  EXPECT_EQ(held_, 1) << "not when it became durable: its newest metadata was missing";
}

TEST_F(UploaderTest, MetadataInTheBaseThatIsNewerThanOursIsLeftAlone) {
  const TestBuild build = Make(1);
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  WriteOptions other;
  other.metadata["peerchunk-version"] = "7";
  ASSERT_OK((*memory_.OpenBlob(Path(build, FileKind::kMetadata)))->Put("{\"theirs\":7}", other));
  ASSERT_OK(registry_->ReplaceMetadata(build.id, "{\"ours\":2}"));
  uploader_->Enqueue(build.id);
  EXPECT_THAT(Finish(), ElementsAre(build.id)) << "what is ours is here only";
  EXPECT_EQ(memory_.Bytes(Path(build, FileKind::kMetadata)), "{\"theirs\":7}");
  EXPECT_EQ(StateOf(build), BuildState::kDurable) << "final";
  EXPECT_THAT(ReasonOf(build), HasSubstr("written by someone else"));
}

}  // namespace
}  // namespace peerchunk::test
