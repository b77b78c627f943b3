// Chunks are fetched on one grid, whoever gives them: the peer, the base, or one for the other in
// the middle of a range.
#include <fcntl.h>

#include <algorithm>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/build/chunk_cache_fixture.h"
#include "tests/peer/peer_fixture.h"

namespace peerchunk::test {
namespace {

constexpr uint64_t kChunk = 256 * kKiB;
using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;  // Begin and end, ascending.

// A provider that notes the ranges that are read through it.
class RecordingProvider final : public StorageProvider {
 public:
  explicit RecordingProvider(StorageProvider& base) : base_(base) {}

  absl::StatusOr<std::unique_ptr<Blob>> OpenBlob(std::string_view path) override {
    return base_.OpenBlob(path);
  }
  absl::StatusOr<std::unique_ptr<Seekable>> OpenSeekable(std::string_view path) override {
    PEERCHUNK_ASSIGN_OR_RETURN(std::unique_ptr<Seekable> object, base_.OpenSeekable(path));
    return std::make_unique<RecordingSeekable>(std::move(object),
                                               [this](uint64_t offset, uint64_t length) {
                                                 const MutexLock lock(mutex_);
                                                 ranges_.emplace_back(offset, offset + length);
                                               });
  }
  absl::StatusOr<uint64_t> DeleteObjectsWithPrefix(std::string_view prefix,
                                                   const WriteOptions& options) override {
    return base_.DeleteObjectsWithPrefix(prefix, options);
  }
  absl::StatusOr<uint64_t> DiscardUnfinishedWrites(
      const std::function<bool(std::string_view)>& goes_on, const WriteOptions& options) override {
    return base_.DiscardUnfinishedWrites(goes_on, options);
  }
  std::string Describe() const override { return base_.Describe(); }

  Ranges ranges() const {
    const MutexLock lock(mutex_);
    return ranges_;
  }

 private:
  StorageProvider& base_;
  mutable Mutex mutex_;
  Ranges ranges_ PEERCHUNK_GUARDED_BY(mutex_);
};

struct Asked {
  Ranges peer;
  Ranges base;
};

class OneGridTest : public testing::Test {
 protected:
  OneGridTest() { budgets_.breaker_failures = 1000; }

  // What is asked for when the guest reads a page here and there, of a peer to which `trouble`
  // happens and of a base that has everything.
  Asked ReadPages(const std::function<void(SimulatedNode&)>& trouble) {
    SimulatedClock clock;
    PeerWorld world(clock, nullptr, budgets_);
    world.Node().PutFile(FileOf(FileKind::kMemfile), bytes_);
    world.Seed(FileKind::kMemfile, bytes_);
    world.Seed(FileKind::kMetadata, "{}");
    trouble(world.Node());
    RecordingProvider base(world.base);
    const auto provider = *world.directory->OpenBuild(
        kBuild, {kPeerA}, std::shared_ptr<StorageProvider>(&base, [](StorageProvider*) {}));

    const TempDir dir;
    ThreadPool pool("fetch", 4);
    ChunkCacheOptions options;
    options.chunk_bytes = kChunk;
    options.executor = &pool;
    options.clock = &clock;
    options.max_read_ahead_bytes = 0;
    const auto cache = *ChunkCache::Open(
        FileOf(FileKind::kMemfile), *dir.folder().OpenAt("cache", O_RDWR | O_CREAT), bytes_.size(),
        provider, *provider->OpenSeekable(FileOf(FileKind::kMemfile).ObjectPath()), options);
    for (const uint64_t page : {5 * kPageBytes, 2 * kChunk + 40 * kPageBytes, 3 * kChunk}) {
      std::string out(kPageBytes, '?');
      EXPECT_OK(cache->ReadAt(page, absl::MakeSpan(out), {}));
      EXPECT_TRUE(out == bytes_.substr(page, kPageBytes));
      const uint64_t chunk = page / kChunk * kChunk;
      const uint64_t length = std::min(kChunk, bytes_.size() - chunk);
      while (cache->PresentBytes(chunk, length) < length) std::this_thread::yield();
      out.resize(length);
      EXPECT_OK(cache->ReadAt(chunk, absl::MakeSpan(out), {}));
      EXPECT_TRUE(out == bytes_.substr(chunk, length));
    }

    Asked asked{.peer = {}, .base = base.ranges()};
    for (const PeerRequest& request : world.Node().requests()) {
      if (request.length == 0) continue;  // The head alone.
      asked.peer.emplace_back(request.offset, request.offset + request.length.value_or(UINT64_MAX));
    }
    std::sort(asked.peer.begin(), asked.peer.end());
    std::sort(asked.base.begin(), asked.base.end());
    return asked;
  }

  PeerBudgets budgets_;
  const std::string bytes_ = SampleBytes(3 * kChunk + 10 * kPageBytes + 100, 1);
};

TEST_F(OneGridTest, PeerAndBaseAreAskedForTheSameRanges) {
  const Asked of_peer = ReadPages([](SimulatedNode&) {});
  const Asked of_base = ReadPages([](SimulatedNode& node) { node.Kill(); });
  EXPECT_TRUE(of_peer.base.empty());
  EXPECT_EQ(of_peer.peer, of_base.base);
  EXPECT_GT(of_peer.peer.size(), 3u);
  for (const auto& [begin, end] : of_peer.peer) {
    EXPECT_EQ(begin / kChunk, (end - 1) / kChunk) << begin << " to " << end;
  }
}

TEST_F(OneGridTest, BaseGoesOnToTheEndOfTheRangeInWhichThePeerDied) {
  constexpr uint64_t kLives = 2 * kPageBytes;
  const Asked healthy = ReadPages([](SimulatedNode&) {});
  const Asked died = ReadPages([](SimulatedNode& node) {
    node.AddFault({.heads_too = false,
                   .after_bytes = kLives,
                   .error = absl::UnavailableError("connection reset")});
  });
  EXPECT_EQ(died.peer, healthy.peer);
  Ranges rests;
  for (const auto& [begin, end] : healthy.peer) {
    if (end - begin > kLives) rests.emplace_back(begin + kLives, end);
  }
  EXPECT_EQ(died.base, rests);
  EXPECT_GE(rests.size(), 3u);
}

}  // namespace
}  // namespace peerchunk::test
