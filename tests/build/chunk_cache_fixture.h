#pragma once

#include <fcntl.h>
#include <sys/mman.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/mutex.h"
#include "peerchunk/build/chunk_cache.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {

// Passes everything on and keeps the options of the range readers that were opened; `on_read` is
// told the offset and the length of each read.
class RecordingSeekable final : public Seekable {
 public:
  using OnRead = std::function<void(uint64_t offset, uint64_t length)>;

  explicit RecordingSeekable(std::unique_ptr<Seekable> base, OnRead on_read = {})
      : base_(std::move(base)), on_read_(std::move(on_read)) {}

  absl::StatusOr<uint64_t> Size(const ReadOptions& options) override {
    return base_->Size(options);
  }
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override {
    if (on_read_) on_read_(offset, out.size());
    {
      const MutexLock lock(mutex_);
      passed_.push_back(options);
    }
    return base_->ReadAt(offset, out, options);
  }
  absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(
      uint64_t offset, uint64_t length, const ReadOptions& options) override {
    if (on_read_) on_read_(offset, length);
    {
      const MutexLock lock(mutex_);
      fetches_.push_back(options);
    }
    return base_->OpenRangeReader(offset, length, options);
  }
  absl::StatusOr<ObjectStat> StoreFile(const std::string& path,
                                       const WriteOptions& options) override {
    return base_->StoreFile(path, options);
  }
  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override {
    return base_->Stat(options);
  }

  std::vector<ReadOptions> fetches() const {
    const MutexLock lock(mutex_);
    return fetches_;
  }
  std::vector<ReadOptions> passed() const {
    const MutexLock lock(mutex_);
    return passed_;
  }

 private:
  const std::unique_ptr<Seekable> base_;
  const OnRead on_read_;
  mutable Mutex mutex_;
  std::vector<ReadOptions> fetches_ PEERCHUNK_GUARDED_BY(mutex_);
  std::vector<ReadOptions> passed_ PEERCHUNK_GUARDED_BY(mutex_);
};

// A chunk cache over storage in memory that can be made to fail, on a virtual clock.
class ChunkCacheTest : public testing::Test {
 protected:
  static constexpr uint64_t kChunk = 256 * 1024;
  static constexpr uint64_t kPage = 4096;

  ChunkCacheTest() {
    options_.chunk_bytes = kChunk;
    options_.fetch_timeout = absl::Seconds(60);
    options_.executor = &pool_;
    options_.clock = &clock_;
    options_.metrics = &metrics_;
  }

  void Open(std::string bytes) {
    Open(std::move(bytes), *dir_.folder().OpenAt("cache", O_RDWR | O_CREAT));
  }
  void Open(std::string bytes, File file) {
    bytes_ = std::move(bytes);
    memory_.Seed(id_.ObjectPath(), bytes_);
    auto upstream = std::make_shared<RecordingSeekable>(*faults_->OpenSeekable(id_.ObjectPath()));
    upstream_ = upstream.get();
    auto cache = ChunkCache::Open(id_, std::move(file), bytes_.size(), faults_, std::move(upstream),
                                  options_);
    ASSERT_OK(cache);
    cache_ = *std::move(cache);
  }

  absl::StatusOr<std::string> Read(uint64_t offset, uint64_t length,
                                   const ReadOptions& options = {}) {
    std::string out(length, '?');
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got,
                               cache_->ReadAt(offset, absl::MakeSpan(out), options));
    out.resize(got);
    return out;
  }
  void ExpectRead(uint64_t offset, uint64_t length, const ReadOptions& options = {}) {
    const auto got = Read(offset, length, options);
    ASSERT_OK(got);
    EXPECT_TRUE(*got == bytes_.substr(offset, length)) << offset << " +" << length;
  }

  uint64_t Fetches(const char* outcome) const {
    return metrics_.CounterValue("peerchunk_chunk_fetches_total", {{"outcome", outcome}});
  }
  uint64_t Passed(const char* reason) const {
    return metrics_.CounterValue("peerchunk_passed_through_reads_total", {{"reason", reason}});
  }

  // A file that cannot be written to once the cache has set its size.
  static File ReadOnlyMemory() { return File(memfd_create("cache", MFD_ALLOW_SEALING)); }
  static void Seal(int fd) { ASSERT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0); }

  const BuildFileId id_{*BuildId::Parse("aaaaaaaa-0000-4000-8000-000000000001"),
                        FileKind::kMemfile};
  TempDir dir_;
  SimulatedClock clock_;
  Metrics metrics_;
  MemoryStorageProvider memory_{clock_};
  std::shared_ptr<FaultStorageProvider> faults_ =
      std::make_shared<FaultStorageProvider>(memory_, clock_);
  ThreadPool pool_{"fetch", 4};
  ChunkCacheOptions options_;
  std::string bytes_;
  RecordingSeekable* upstream_ = nullptr;
  std::shared_ptr<ChunkCache> cache_;
};

}  // namespace peerchunk::test
