#include "peerchunk/build/diff_store.h"

#include <atomic>
#include <map>
#include <random>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "tests/build/held_executor.h"
#include "tests/support/fake_build_file.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {
namespace {

BuildFileId Id(uint8_t n, FileKind kind = FileKind::kMemfile) {
  std::array<uint8_t, BuildId::kBytes> bytes{};
  bytes[0] = n;
  return {BuildId(bytes), kind};
}

std::shared_ptr<BuildFile> FileOf(BuildFileId id, size_t size) {
  return std::make_shared<FakeBuildFile>(id, std::string(size, 'x'));
}

DiffStore::Opener Never() {
  return []() -> absl::StatusOr<std::shared_ptr<BuildFile>> {
    ADD_FAILURE() << "opened again";
    return absl::InternalError("");
  };
}

TEST(DiffStoreTest, OpensOnceAndPins) {
  DiffStore store({});
  EXPECT_EQ(store.Lookup(Id(1)), nullptr);
  const auto opened = store.GetOrOpen(Id(1), [] { return FileOf(Id(1), 10); }, {});
  ASSERT_OK(opened);
  EXPECT_EQ(*store.GetOrOpen(Id(1), Never(), {}), *opened);
  EXPECT_EQ(store.Lookup(Id(1)), *opened);
  EXPECT_EQ(store.AllocatedBytes(), 10u);
}

TEST(DiffStoreTest, AFailedOpenIsNotRemembered) {
  DiffStore store({});
  const auto fail = []() -> absl::StatusOr<std::shared_ptr<BuildFile>> {
    return absl::PermissionDeniedError("planted");
  };
  EXPECT_EQ(CodeOf(store.GetOrOpen(Id(1), fail, {})), absl::StatusCode::kPermissionDenied);
  EXPECT_OK(store.GetOrOpen(Id(1), [] { return FileOf(Id(1), 1); }, {}));
}

class HeldDiffStoreTest : public testing::Test {
 protected:
  DiffStore::Options Options() {
    DiffStore::Options options;
    options.executor = &held_;
    options.clock = &clock_;
    options.capacity_bytes = 100;
    options.on_evict = [this](const BuildFileId& id) { evicted_.insert(id); };
    return options;
  }
  ReadOptions Patient() {
    ReadOptions options;
    options.deadline = clock_.Now() + absl::Hours(1);
    return options;
  }

  SimulatedClock clock_;
  HeldExecutor held_;
  std::set<BuildFileId> evicted_;
};

TEST_F(HeldDiffStoreTest, CallersShareOneAttemptAndItsFailure) {
  DiffStore store(Options());
  std::atomic<int> attempts = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      const auto got = store.GetOrOpen(
          Id(1),
          [&]() -> absl::StatusOr<std::shared_ptr<BuildFile>> {
            ++attempts;
            return absl::UnavailableError("planted");
          },
          Patient());
      EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable);
    });
  }
  clock_.AwaitWaiters(4);
  held_.RunAll();
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(attempts, 1);
}

TEST_F(HeldDiffStoreTest, ACallerWhoLeavesDoesNotFailTheOthers) {
  DiffStore store(Options());
  const auto open = [] { return FileOf(Id(1), 1); };
  std::stop_source stop;
  ReadOptions cancellable = Patient();
  cancellable.cancellation = stop.get_token();
  ReadOptions hasty;
  hasty.deadline = clock_.Now() + absl::Seconds(1);
  std::thread first([&] {
    EXPECT_EQ(CodeOf(store.GetOrOpen(Id(1), open, cancellable)), absl::StatusCode::kCancelled);
  });
  clock_.AwaitWaiters(1);
  std::thread second([&] {
    EXPECT_EQ(CodeOf(store.GetOrOpen(Id(1), Never(), hasty)), absl::StatusCode::kDeadlineExceeded);
  });
  std::thread third([&] { EXPECT_OK(store.GetOrOpen(Id(1), Never(), Patient())); });
  clock_.AwaitWaiters(3);
  stop.request_stop();
  clock_.Advance(absl::Seconds(1));
  first.join();
  second.join();
  held_.RunAll();
  third.join();
}

TEST_F(HeldDiffStoreTest, StartOpenDoesNotWait) {
  DiffStore store(Options());
  store.StartOpen(
      Id(1), [] { return FileOf(Id(1), 1); }, Priority::kDemand);
  store.StartOpen(Id(1), Never(), Priority::kDemand);
  EXPECT_EQ(store.Lookup(Id(1)), nullptr);
  held_.RunAll();
  EXPECT_NE(store.Lookup(Id(1)), nullptr);
}

TEST_F(HeldDiffStoreTest, WhatIsInsertedMeanwhileStays) {
  DiffStore store(Options());
  store.StartOpen(
      Id(1), [] { return FileOf(Id(1), 1); }, Priority::kDemand);
  const auto inserted = FileOf(Id(1), 2);
  store.Insert(Id(1), inserted, false);
  held_.RunAll();
  EXPECT_EQ(store.Lookup(Id(1)), inserted);
}

TEST_F(HeldDiffStoreTest, CloseFailsThoseWhoWaitForWhatNeverBegan) {
  DiffStore store(Options());
  store.Insert(Id(2), FileOf(Id(2), 1), false);
  std::thread waiter([&] {
    EXPECT_EQ(CodeOf(store.GetOrOpen(Id(1), Never(), Patient())), absl::StatusCode::kUnavailable);
  });
  clock_.AwaitWaiters(1);
  store.Close();
  waiter.join();
  held_.RunAll();
  EXPECT_EQ(CodeOf(store.GetOrOpen(Id(3), Never(), {})), absl::StatusCode::kUnavailable);
  EXPECT_EQ(store.Lookup(Id(2)), nullptr);
  store.Insert(Id(2), FileOf(Id(2), 1), false);
  EXPECT_EQ(store.Lookup(Id(2)), nullptr);
}

TEST_F(HeldDiffStoreTest, EvictsOldestUseFirstDownToLowWater) {
  DiffStore store(Options());
  for (uint8_t n = 1; n <= 4; ++n) store.Insert(Id(n), FileOf(Id(n), 25), false);
  store.Trim();
  held_.RunAll();
  EXPECT_TRUE(evicted_.empty()) << "within the budget";
  store.Lookup(Id(1));
  store.Insert(Id(5), FileOf(Id(5), 25), false);
  store.Trim();
  held_.RunAll();
  EXPECT_EQ(evicted_, (std::set<BuildFileId>{Id(2), Id(3)})) << "75 is below 90, 100 is not";
  EXPECT_EQ(store.AllocatedBytes(), 75u);
}

TEST_F(HeldDiffStoreTest, PinnedAndOnlyCopiesStay) {
  DiffStore store(Options());
  const auto pin = FileOf(Id(1), 60);
  store.Insert(Id(1), pin, false);
  store.Insert(Id(2), FileOf(Id(2), 60), true);
  store.Trim();
  held_.RunAll();
  EXPECT_TRUE(evicted_.empty());
  EXPECT_TRUE(store.Full());
  EXPECT_FALSE(store.MakeRoom(1));

  store.SetOnlyCopy(Id(2).build, false);
  EXPECT_FALSE(store.Full());
  EXPECT_TRUE(store.MakeRoom(10));
  held_.RunAll();
  EXPECT_EQ(evicted_, (std::set<BuildFileId>{Id(2)}));
  EXPECT_NE(store.Lookup(Id(1)), nullptr);
}

TEST_F(HeldDiffStoreTest, WhatWasPutInOfOneBuildStaysWhileOneFileIsRead) {
  DiffStore store(Options());
  const BuildFileId rootfs = Id(1, FileKind::kRootfs);
  store.Insert(Id(1), FileOf(Id(1), 60), false);
  store.Insert(rootfs, FileOf(rootfs, 60), false);
  auto pin = store.Lookup(rootfs);
  EXPECT_TRUE(store.InUse(rootfs.build));
  store.Trim();
  held_.RunAll();
  EXPECT_TRUE(evicted_.empty());
  EXPECT_TRUE(store.Full());
  pin = nullptr;
  EXPECT_FALSE(store.InUse(rootfs.build));
  EXPECT_FALSE(store.Full());
  store.Trim();
  held_.RunAll();
  EXPECT_EQ(evicted_, (std::set<BuildFileId>{Id(1)}));
}

// Each of those is a cache by itself.
TEST_F(HeldDiffStoreTest, WhatWasOpenedOfOneBuildGoesFileByFile) {
  DiffStore store(Options());
  const BuildFileId rootfs = Id(1, FileKind::kRootfs);
  for (const BuildFileId& id : {Id(1), rootfs}) {
    store.StartOpen(
        id, [id] { return FileOf(id, 60); }, Priority::kDemand);
  }
  held_.RunAll();
  const auto pin = store.Lookup(rootfs);
  store.Trim();
  held_.RunAll();
  EXPECT_EQ(evicted_, (std::set<BuildFileId>{Id(1)}));
}

TEST_F(HeldDiffStoreTest, MakeRoomDoesNotOverflow) {
  DiffStore store(Options());
  store.Insert(Id(1), FileOf(Id(1), 10), true);
  EXPECT_FALSE(store.MakeRoom(UINT64_MAX));
  EXPECT_TRUE(store.MakeRoom(90));
  EXPECT_FALSE(store.MakeRoom(91));
}

TEST_F(HeldDiffStoreTest, FilesAreAskedOnlyWhenWhatWasGrantedMayNotFit) {
  class Asked final : public FakeBuildFile {
   public:
    using FakeBuildFile::FakeBuildFile;
    uint64_t AllocatedBytes() const override {
      ++asked;
      return FakeBuildFile::AllocatedBytes();
    }
    mutable int asked = 0;
  };
  DiffStore store(Options());
  const auto file = std::make_shared<Asked>(Id(1), std::string(10, 'x'));
  store.Insert(Id(1), file, true);
  file->asked = 0;
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(store.MakeRoom(10));
  EXPECT_TRUE(store.HasRoom(10));
  EXPECT_EQ(file->asked, 0);
  EXPECT_TRUE(store.MakeRoom(10)) << "what was granted turned out to be holes";
  EXPECT_EQ(file->asked, 1);
  EXPECT_FALSE(store.HasRoom(100));
}

TEST_F(HeldDiffStoreTest, RemoveForgetsAndReadersKeepTheirPins) {
  DiffStore store(Options());
  store.Insert(Id(1), FileOf(Id(1), 10), true);
  const auto pin = store.Lookup(Id(1));
  store.Remove(Id(1));
  store.Remove(Id(1));
  EXPECT_EQ(store.Lookup(Id(1)), nullptr);
  EXPECT_EQ(pin->size(), 10u);
}

TEST(DiffStoreTest, WithoutAnExecutorEvictionIsDoneByWhoTrims) {
  std::set<BuildFileId> evicted;
  DiffStore::Options options;
  options.capacity_bytes = 10;
  options.on_evict = [&](const BuildFileId& id) { evicted.insert(id); };
  DiffStore store(std::move(options));
  store.Insert(Id(1), FileOf(Id(1), 11), false);
  store.Trim();
  EXPECT_EQ(evicted.size(), 1u);
}

// Random operations against a model: sizes, uses, pins and only copies.
TEST(DiffStoreTest, AgreesWithAModel) {
  struct Model {
    uint64_t size = 0;
    uint64_t use = 0;
    bool only_copy = false;
    std::vector<std::shared_ptr<BuildFile>> pins;
  };
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::set<BuildFileId> evicted;
    DiffStore::Options options;
    options.capacity_bytes = 1000;
    options.low_water = 0.8;
    options.on_evict = [&](const BuildFileId& id) { evicted.insert(id); };
    DiffStore store(std::move(options));
    std::map<BuildFileId, Model> model;
    const auto stays = [&](const BuildId& build) {
      return std::any_of(model.begin(), model.end(), [&](const auto& file) {
        return file.first.build == build && (file.second.only_copy || !file.second.pins.empty());
      });
    };
    uint64_t use = 0;
    for (int step = 0; step < 1000; ++step) {
      const BuildFileId id = Id(static_cast<uint8_t>(random() % 12),
                                random() % 2 == 0 ? FileKind::kMemfile : FileKind::kRootfs);
      switch (random() % 7) {
        case 0:
        case 1: {  // Insert, unless there: the pins of a replaced file are not the store's.
          if (model.contains(id)) break;
          Model entry{.size = random() % 300, .use = ++use, .only_copy = random() % 3 == 0};
          store.Insert(id, FileOf(id, entry.size), entry.only_copy);
          model[id] = entry;
          break;
        }
        case 2: {
          const auto pin = store.Lookup(id);
          ASSERT_EQ(pin != nullptr, model.contains(id));
          if (pin != nullptr) {
            model[id].use = ++use;
            if (random() % 2 == 0) model[id].pins.push_back(pin);
          }
          break;
        }
        case 3:
          if (model.contains(id)) model[id].pins.clear();
          break;
        case 4:
          store.SetOnlyCopy(id.build, false);
          for (auto& [other, entry] : model) {
            if (other.build == id.build) entry.only_copy = false;
          }
          break;
        case 5:
          store.Remove(id);
          model.erase(id);
          break;
        case 6: {
          evicted.clear();
          store.Trim();
          uint64_t held = 0;
          for (const auto& [other, entry] : model) held += entry.size;
          std::set<BuildFileId> expected;
          while (held > (expected.empty() ? 1000 : 800)) {
            auto oldest = model.end();
            for (auto it = model.begin(); it != model.end(); ++it) {
              if (stays(it->first.build)) continue;
              if (oldest == model.end() || it->second.use < oldest->second.use) oldest = it;
            }
            if (oldest == model.end()) break;
            held -= oldest->second.size;
            expected.insert(oldest->first);
            model.erase(oldest);
          }
          ASSERT_EQ(evicted, expected);
          break;
        }
      }
      uint64_t held = 0;
      uint64_t fixed = 0;
      for (const auto& [other, entry] : model) {
        held += entry.size;
        if (stays(other.build)) fixed += entry.size;
      }
      ASSERT_EQ(store.AllocatedBytes(), held);
      ASSERT_EQ(store.Full(), fixed > 1000);
    }
  }
}

}  // namespace
}  // namespace peerchunk::test
