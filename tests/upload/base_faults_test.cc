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

}  // namespace
}  // namespace peerchunk::test
