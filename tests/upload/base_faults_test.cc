#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/upload/uploader_fixture.h"

namespace peerchunk::test {
namespace {

using testing::IsEmpty;

StorageFault RandomFault(std::mt19937& random) {
  StorageFault fault;
  fault.call = random() % 3 == 0 ? StorageCall::kStat : StorageCall::kWrite;
  fault.skip = random() % 30;
  fault.times = 1 + random() % 4;
  switch (random() % 7) {
    case 0:
      fault.error = absl::UnavailableError("planted");
      break;
    case 1:
      fault.error = absl::DeadlineExceededError("planted");
      fault.delay = absl::Seconds(random() % 100);
      break;
    case 2:
      fault.error = absl::InternalError("planted");
      fault.after_write = true;
      break;
    case 3:
      fault.error = absl::DataLossError("planted");
      break;
    case 4:
      fault.call = StorageCall::kWrite;
      fault.alter_stat = [](ObjectStat& stat) { stat.crc32c = *stat.crc32c ^ 0x40; };
      break;
    case 5:
      fault.call = StorageCall::kWrite;
      fault.after_write = true;
      fault.alter_stat = [](ObjectStat& stat) { stat.size /= 2; };
      break;
    case 6:
      fault.call = StorageCall::kWrite;
      fault.store_half = true;
      if (random() % 2 == 0) {
        fault.after_write = true;
        fault.error = absl::UnavailableError("planted");
      }
      break;
  }
  return fault;
}

// Whatever the base does, DURABLE is said only of what it holds whole, parents first, and is said
// of all once the faults stop.
TEST_F(UploaderTest, DurableIsNeverSaidTooEarlyAndAlwaysInTheEnd) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::vector<TestBuild> builds;
    builds.reserve(6);
    for (uint32_t i = 0; i < 6; ++i) {
      builds.push_back(MakeTestBuild({.memfile_bytes = 20 * kPageBytes,
                                      .rootfs_bytes = 12 * kPageBytes,
                                      .seed = 100 * seed + i,
                                      .parent = i % 3 == 0 ? nullptr : &builds[i - 1]}));
    }
    for (int i = 0; i < 25; ++i) faults_.AddFault(RandomFault(random));
    options_.seed = seed;
    options_.parallel_builds = 1 + seed % 3;
    options_.on_durable = [&](const BuildId& id) {
      for (const TestBuild& build : builds) {
        if (build.id != id) continue;
        EXPECT_TRUE(Complete(build));
        for (const BuildId& ancestor : registry_->Find(id)->ancestors) {
          EXPECT_EQ(registry_->Find(ancestor)->status.state, BuildState::kDurable);
        }
      }
    };
    for (const TestBuild& build : builds) Pause(build);
    Start();
    for (int restarts = seed % 4; restarts > 0; --restarts) {
      uploader_->WaitIdle(clock_.Now() + absl::Seconds(random() % 20));
      Restart();
      for (const TestBuild& build : builds) {
        if (StateOf(build) == BuildState::kDurable) {
          EXPECT_TRUE(Complete(build));
        }
      }
    }
    EXPECT_THAT(Finish(), IsEmpty());
    for (const TestBuild& build : builds) EXPECT_TRUE(Complete(build));
    faults_.ClearFaults();
    uploader_ = nullptr;
    for (const TestBuild& build : builds) ASSERT_OK(registry_->Remove(build.id));
  }
}

TEST_F(UploaderTest, ABaseThatIsGoneForAMinuteIsWaitedFor) {
  const TestBuild parent = Make(1);
  const TestBuild child = Make(2, &parent);
  for (const StorageCall call : {StorageCall::kStat, StorageCall::kRead, StorageCall::kWrite}) {
    // Some of it is there already when the base goes.
    faults_.AddFault({.call = call, .skip = 3, .error = absl::UnavailableError("gone")});
  }
  const absl::Time back = clock_.Now() + absl::Minutes(1);
  Pause(parent);
  Pause(child);
  Start();
  while (clock_.Now() < back) {
    for (const TestBuild* build : {&parent, &child}) {
      EXPECT_NE(StateOf(*build), BuildState::kDurable);
      EXPECT_NE(StateOf(*build), BuildState::kFailed);
      EXPECT_EQ(memory_.Bytes(Path(*build, FileKind::kMetadata)), std::nullopt);
    }
  }
  // Each failure is shown. The child's waits move the clock too, whatever the parent is at.
  while (registry_->Find(parent.id)->upload_attempts == 0) std::this_thread::yield();
  EXPECT_THAT(ReasonOf(parent), testing::HasSubstr("gone"));
  faults_.ClearFaults();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_TRUE(Complete(parent) && Complete(child));
}

TEST_F(UploaderTest, ASlowBaseGetsThere) {
  for (const StorageCall call : {StorageCall::kStat, StorageCall::kRead, StorageCall::kWrite}) {
    faults_.AddFault({.call = call, .delay = absl::Minutes(3)});
  }
  const TestBuild build = Make(1);
  const absl::Time begun = clock_.Now();
  Pause(build);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_TRUE(Complete(build));
  EXPECT_GE(clock_.Now() - begun, absl::Minutes(18));
  EXPECT_EQ(registry_->Find(build.id)->upload_attempts, 0u) << "slow is no failure";
}

// Whatever one object of the base turns out to be, the build is not DURABLE with it.
TEST_F(UploaderTest, AnObjectThatIsHalfOrWrongIsNeverTakenForTheWhole) {
  for (const FileKind kind : kAllFileKinds) {
    for (const bool half : {true, false}) {
      SCOPED_TRACE(std::string(FileName(kind)) + (half ? " half" : " wrong"));
      const TestBuild build = Make(100 + 2 * static_cast<uint32_t>(kind) + (half ? 1 : 0));
      std::string bytes = build.files.at(kind);
      if (bytes.empty()) continue;  // A diff in which nothing is dirty.
      if (half) {
        bytes.resize(bytes.size() / 2);
      } else {
        bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
      }
      memory_.Seed(Path(build, kind), bytes);
      Pause(build);
      Start();
      EXPECT_THAT(Finish(), testing::ElementsAre(build.id));
      EXPECT_EQ(StateOf(build), BuildState::kFailed) << "an operator has to say whose it is";
      EXPECT_THAT(ReasonOf(build), testing::HasSubstr(Path(build, kind)));
      memory_.Remove(Path(build, kind));
      ASSERT_OK(registry_->Retry(build.id));
      uploader_->Enqueue(build.id);
      EXPECT_THAT(Finish(), IsEmpty());
      EXPECT_TRUE(Complete(build));
      uploader_ = nullptr;
      ASSERT_OK(registry_->Remove(build.id));
    }
  }
}

// What the base keeps of a write that went wrong is ours: nobody has to remove it.
TEST_F(UploaderTest, AHalfWriteIsMendedByTheNextAttemptAlsoAfterARestart) {
  uint32_t seed = 0;
  for (const bool answer_lost : {false, true}) {
    for (const FileKind kind : kAllFileKinds) {
      SCOPED_TRACE(std::string(FileName(kind)) + (answer_lost ? ", answer lost" : ""));
      const TestBuild build = Make(100 + ++seed);
      if (build.files.at(kind).empty()) continue;
      StorageFault half{.call = StorageCall::kWrite, .path = Path(build, kind), .times = 2};
      half.store_half = true;
      half.after_write = answer_lost;
      if (answer_lost) half.error = absl::UnavailableError("connection lost");
      faults_.AddFault(half);
      // The second attempt stands still, and then the process is another one.
      faults_.AddFault(
          {.call = StorageCall::kWrite, .path = Path(build, kind), .times = 1, .stall = true});
      Pause(build);
      Start();
      faults_.AwaitStalled(1);
      EXPECT_NE(StateOf(build), BuildState::kDurable);
      Restart();
      EXPECT_THAT(Finish(), IsEmpty());
      EXPECT_TRUE(Complete(build));
      faults_.ClearFaults();
      uploader_ = nullptr;
      ASSERT_OK(registry_->Remove(build.id));
    }
  }
}

// Objects may be deleted behind our back (rm --from-base on another node, a clean-up of the bucket)
// between their confirmation and the end of the upload.
TEST_F(UploaderTest, WhatDisappearsFromTheBaseMeanwhileIsSentAgain) {
  const TestBuild build = Make(1);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(build, FileKind::kRootfsHeader),
                    .times = 1,
                    .stall = true});
  Pause(build);
  Start();
  faults_.AwaitStalled(1);
  memory_.Remove(Path(build, FileKind::kMemfile));
  memory_.Remove(Path(build, FileKind::kMemfileHeader));
  faults_.ClearFaults();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_TRUE(Complete(build));
  EXPECT_EQ(faults_.calls(StorageCall::kWrite, Path(build, FileKind::kRootfs)), 1u);
  EXPECT_GT(registry_->Find(build.id)->upload_attempts, 0u) << "and it is shown";
}

TEST_F(UploaderTest, NoRecordOfAnObjectIsBelievedAtTheEnd) {
  const TestBuild build = Make(1);
  Pause(build);
  ASSERT_OK(registry_->MarkUploading(build.id));
  for (const FileKind kind : kAllFileKinds) {
    if (kind == FileKind::kMetadata) continue;
    ASSERT_OK(registry_->ConfirmInBase({build.id, kind}));
  }
  ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 1));
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  EXPECT_TRUE(Complete(build));
}

TEST_F(UploaderTest, AnotherBaseHasConfirmedNothing) {
  const TestBuild durable = Make(1);
  const TestBuild half_way = Make(2);
  Pause(durable);
  Start();
  EXPECT_THAT(Finish(), IsEmpty());
  Pause(half_way);
  faults_.AddFault({.call = StorageCall::kWrite,
                    .path = Path(half_way, FileKind::kSnapfile),
                    .times = 1,
                    .stall = true});
  uploader_->Enqueue(half_way.id);
  faults_.AwaitStalled(1);
  uploader_ = nullptr;

  base_ = "another";
  OpenRegistry();
  EXPECT_EQ(StateOf(durable), BuildState::kLocal);
  EXPECT_THAT(registry_->StartupReport(),
              testing::ElementsAre(testing::HasSubstr("was DURABLE in memory")));
  MemoryStorageProvider other(clock_);
  Start(other);
  EXPECT_THAT(Finish(), IsEmpty());
  for (const TestBuild* build : {&durable, &half_way}) {
    EXPECT_EQ(StateOf(*build), BuildState::kDurable);
    for (const auto& [kind, bytes] : build->files) {
      EXPECT_TRUE(other.Bytes(Path(*build, kind)) == bytes);
    }
  }
  uploader_ = nullptr;  // Before its base.
}

}  // namespace
}  // namespace peerchunk::test
