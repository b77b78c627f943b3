// When what unfinished writes left in the base is given up.
#include "upload/leftover_sweep.h"

#include "tests/upload/uploader_fixture.h"

namespace peerchunk::test {
namespace {

class LeftoverSweepTest : public UploaderTest {
 protected:
  void StallWritesOf(const TestBuild& build, FileKind kind) {
    faults_.AddFault({.call = StorageCall::kWrite, .path = Path(build, kind), .stall = true});
  }
};

TEST_F(LeftoverSweepTest, AtTheStartOnlyWhatWillBeSentAgainStays) {
  const TestBuild build = Make(1);
  Pause(build);
  StallWritesOf(build, FileKind::kMemfile);
  const std::string mine = Path(build, FileKind::kMemfile);
  const std::string foreign = "not/a-build's";
  for (const std::string& path : {mine, foreign, Path(Make(2), FileKind::kMemfile)}) {
    memory_.SeedUnfinished(path);
  }
  Start();
  memory_.AwaitUnfinished({foreign, mine});
  faults_.AwaitStalled(1);
  faults_.ClearFaults();
  EXPECT_TRUE(Finish().empty());
  memory_.AwaitUnfinished({foreign});
}

// The process died when the object was complete and not yet recorded as such.
TEST_F(LeftoverSweepTest, AFileThatIsFoundInTheBaseLeavesNothing) {
  const TestBuild build = Make(1);
  Pause(build);
  const std::string memfile = Path(build, FileKind::kMemfile);
  memory_.Seed(memfile, build.files.at(FileKind::kMemfile));
  memory_.SeedUnfinished(memfile);
  Start();
  EXPECT_TRUE(Finish().empty());
  EXPECT_EQ(faults_.calls(StorageCall::kWrite, memfile), 0u);
  memory_.AwaitUnfinished({});
}

TEST_F(LeftoverSweepTest, WhatABuildLeftThatIsRemovedBetweenAttemptsGoes) {
  const TestBuild build = Make(1);
  Pause(build);
  StallWritesOf(build, FileKind::kRootfs);
  Start();
  faults_.AwaitStalled(1);
  {
    const Uploader::Hold hold = uploader_->Stop(build.id);
    memory_.SeedUnfinished(Path(build, FileKind::kRootfs));
    ASSERT_OK(registry_->Remove(build.id));
  }
  memory_.AwaitUnfinished({});
}

TEST_F(LeftoverSweepTest, ABaseThatCouldNotIsAskedAgain) {
  memory_.SeedUnfinished(Path(Make(1), FileKind::kMemfile));
  faults_.AddFault(
      {.call = StorageCall::kDiscard, .times = 3, .error = absl::UnavailableError("fault")});
  const absl::Time before = clock_.Now();
  Start();
  memory_.AwaitUnfinished({});
  EXPECT_EQ(faults_.calls(StorageCall::kDiscard), 4u);
  EXPECT_EQ(clock_.Now() - before, 3 * absl::Minutes(5));
}

TEST_F(LeftoverSweepTest, ItEndsWithTheUploader) {
  faults_.AddFault({.call = StorageCall::kDiscard, .stall = true});
  Start();
  faults_.AwaitStalled(1);
  uploader_ = nullptr;
}

}  // namespace
}  // namespace peerchunk::test
