#include <random>

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
  switch (random() % 6) {
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
  EXPECT_GT(registry_->Find(parent.id)->upload_attempts, 0u) << "each failure is shown";
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

}  // namespace
}  // namespace peerchunk::test
