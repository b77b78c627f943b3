#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/executor.h"
#include "peerchunk/template/template_cache.h"
#include "peerchunk/upload/uploader.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {
namespace {

void ExpectSameBytes(Device& device, const std::string& expected, std::mt19937& random) {
  const uint64_t offset = random() % expected.size();
  const uint64_t length = std::min<uint64_t>(1 + random() % 200'000, expected.size() - offset);
  std::string got(length, '?');
  const auto read = device.ReadAt(offset, absl::MakeSpan(got), {});
  ASSERT_OK(read);
  EXPECT_TRUE(got == std::string_view(expected).substr(offset, length));
}

// A budget smaller than the builds that are not durable, sixteen readers, pauses going on while the
// base takes nothing, and then takes all.
TEST(DiskPressureTest, NothingIsLostAndNoReaderFails) {
  constexpr uint64_t kCapacity = 3 * kMiB;
  constexpr size_t kThreads = 4;
  constexpr uint64_t kChunk = 64 * kKiB;
  TempDir dir(TempDir::Place::kMemory);
  Metrics metrics;
  MemoryStorageProvider memory;
  auto reading = std::make_shared<FaultStorageProvider>(memory);
  FaultStorageProvider writing(memory);
  writing.AddFault({.call = StorageCall::kWrite, .stall = true});

  std::vector<TestBuild> foreign;
  std::vector<TestBuild> local;
  for (uint32_t i = 0; i < 4; ++i) {
    foreign.push_back(MakeTestBuild({.memfile_bytes = kMiB, .rootfs_bytes = kMiB, .seed = 1 + i}));
    for (const auto& [kind, bytes] : foreign.back().files) {
      memory.Seed(BuildFileId{foreign.back().id, kind}.ObjectPath(), bytes);
    }
  }
  for (uint32_t i = 0; i < 8; ++i) {
    local.push_back(MakeTestBuild({.memfile_bytes = kMiB, .rootfs_bytes = kMiB, .seed = 50 + i}));
  }

  ThreadPool pool("pressure", kThreads);
  auto registry = BuildRegistry::Open({.folder = dir.PathOf("builds"), .executor = &pool});
  ASSERT_OK(registry);
  TemplateCache::Options options;
  options.cache_folder = dir.PathOf("chunks");
  options.cache_capacity_bytes = kCapacity;
  options.chunks.chunk_bytes = kChunk;
  options.open_provider = [&](const BuildId&, const std::vector<std::string>&) {
    return absl::StatusOr<std::shared_ptr<StorageProvider>>(reading);
  };
  options.registry = registry->get();
  options.executor = &pool;
  options.metrics = &metrics;
  auto opened = TemplateCache::Open(std::move(options));
  ASSERT_OK(opened);
  TemplateCache& cache = **opened;
  Uploader::Options upload_options;
  upload_options.on_durable = [&](const BuildId& id) { cache.UpdatePins(id); };
  auto uploader = Uploader::Start(registry->get(), &writing, std::move(upload_options));
  ASSERT_OK(uploader);

  std::atomic<size_t> paused = 0;
  std::atomic<bool> stop = false;
  std::vector<std::thread> readers;
  for (uint32_t seed = 0; seed < 16; ++seed) {
    readers.emplace_back([&, seed] {
      std::mt19937 random(seed);
      while (!stop) {
        const size_t here = paused;
        const bool use_local = here > 0 && random() % 2 == 0;
        const TestBuild& build = use_local ? local[random() % here] : foreign[random() % 4];
        const auto loaded = cache.GetTemplate(build.id, {}, {});
        ASSERT_OK(loaded);
        for (int i = 0; i < 5; ++i) {
          ExpectSameBytes(*(*loaded)->Memfile(), build.memfile, random);
          ExpectSameBytes((*loaded)->Rootfs(), build.rootfs, random);
        }
      }
    });
  }
  uint64_t only_copies = 0;
  for (const TestBuild& build : local) {
    ASSERT_OK((*registry)->Add(build.id, build.WriteTo(dir, "in-" + build.id.ToString()), false));
    ASSERT_OK(cache.AddSnapshot(build.id, {}));
    for (const auto& [kind, bytes] : build.files) only_copies += RoundUp(bytes.size(), kPageBytes);
    only_copies += 2 * kPageBytes;  // Its record, and its checksums.
    ++paused;
    (*uploader)->Enqueue(build.id);
  }
  ASSERT_GT(only_copies, kCapacity);
  EXPECT_TRUE(cache.BuildStore().Full()) << "new work is to be refused";
  // The rest is what fetches under way may add at once.
  EXPECT_LE(cache.BuildStore().AllocatedBytes(), only_copies + kCapacity + kThreads * kChunk);
  for (const TestBuild& build : local) EXPECT_NE((*registry)->Find(build.id), nullptr);

  writing.ClearFaults();
  EXPECT_THAT((*uploader)->WaitIdle(absl::InfiniteFuture()), testing::IsEmpty());
  stop = true;
  for (std::thread& reader : readers) reader.join();
  // Once nobody holds anything, what is durable goes until the budget holds.
  for (const TestBuild& build : foreign) cache.Evict(build.id);
  while (cache.BuildStore().AllocatedBytes() > kCapacity) {
    for (const BuildId& id : cache.LoadedBuilds()) cache.GetCachedTemplate(id) = nullptr;
    cache.BuildStore().MakeRoom(0);
    const auto any = cache.GetTemplate(foreign[0].id, {}, {});
    ASSERT_OK(any);
    std::mt19937 random(1);
    ExpectSameBytes((*any)->Rootfs(), foreign[0].rootfs, random);
    cache.UpdatePins(local[0].id);
  }
  EXPECT_FALSE(cache.BuildStore().Full());
  for (const TestBuild& build : local) {
    const auto loaded = cache.GetTemplate(build.id, {}, {});
    ASSERT_OK(loaded);
    std::mt19937 random(2);
    ExpectSameBytes(*(*loaded)->Memfile(), build.memfile, random);
  }
}

}  // namespace
}  // namespace peerchunk::test
