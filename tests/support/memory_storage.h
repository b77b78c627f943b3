#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk::test {

// A bucket in memory with the whole contract of StorageProvider. Zero pages come out of range
// readers as zero extents. Thread-safe.
class MemoryStorageProvider final : public StorageProvider {
 public:
  explicit MemoryStorageProvider(Clock& clock = Clock::Real(), bool knows_crc = true)
      : clock_(clock), knows_crc_(knows_crc) {}

  absl::StatusOr<std::unique_ptr<Blob>> OpenBlob(std::string_view path) override;
  absl::StatusOr<std::unique_ptr<Seekable>> OpenSeekable(std::string_view path) override;
  absl::StatusOr<uint64_t> DeleteObjectsWithPrefix(std::string_view prefix,
                                                   const WriteOptions& options) override;
  // Of the paths that SeedUnfinished named.
  absl::StatusOr<uint64_t> DiscardUnfinishedWrites(
      const std::function<bool(std::string_view path)>& goes_on,
      const WriteOptions& options) override;
  std::string Describe() const override { return "memory"; }

  // For tests, around the contract.
  void Seed(std::string_view path, std::string bytes);
  void Remove(std::string_view path);
  std::optional<std::string> Bytes(std::string_view path) const;
  std::vector<std::string> Paths() const;
  // As if a write of this path had left something behind.
  void SeedUnfinished(std::string_view path);
  // Blocks until something is left behind of just these paths.
  void AwaitUnfinished(const std::set<std::string>& paths);

 private:
  friend class MemoryObject;
  struct Version {
    std::string bytes;
    ObjectStat stat;
  };

  std::shared_ptr<const Version> Find(const std::string& path) const;
  absl::StatusOr<std::shared_ptr<const Version>> Open(const std::string& path,
                                                      const ReadOptions& options) const;
  absl::StatusOr<ObjectStat> Write(const std::string& path, std::string bytes,
                                   const WriteOptions& options);

  Clock& clock_;
  const bool knows_crc_;
  mutable Mutex mutex_;
  uint64_t versions_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::shared_ptr<const Version>, std::less<>> objects_
      PEERCHUNK_GUARDED_BY(mutex_);
  CondVar discarded_;
  std::set<std::string> unfinished_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk::test
