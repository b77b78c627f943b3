#pragma once

#include <memory>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "peerchunk/base/mutex.h"
#include "peerchunk/template/template_cache.h"

namespace peerchunk {

// A layer's diff as it is read from every node that was named for it so far: the chunk cache above
// it stays while those come and go. Owned by that cache; thread-safe.
class LayerUpstream final : public Seekable {
 public:
  // `open_provider` is borrowed, for calls of Add alone.
  LayerUpstream(const BuildFileId& layer, const ProviderFactory* open_provider)
      : layer_(layer), open_provider_(open_provider) {}

  // Reads that begin from now on choose from these addresses, too, after those that are known; the
  // others go on as they are. After an error all is as before. The first call, though it may name
  // none, has to succeed before the object is read.
  absl::Status Add(const std::vector<std::string>& addresses);

  absl::StatusOr<uint64_t> Size(const ReadOptions& options) override;
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override;
  absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(uint64_t offset, uint64_t length,
                                                               const ReadOptions& options) override;
  absl::StatusOr<ObjectStat> StoreFile(const std::string& path,
                                       const WriteOptions& options) override;
  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override;

 private:
  // The object by one set of addresses.
  struct Opened {
    std::vector<std::string> addresses;
    std::shared_ptr<StorageProvider> provider;  // Before `object`, which must go first.
    std::unique_ptr<Seekable> object;
  };
  class Reader;

  std::shared_ptr<const Opened> Latest() const;

  const BuildFileId layer_;
  const ProviderFactory* const open_provider_;
  mutable Mutex mutex_;
  std::shared_ptr<const Opened> opened_ PEERCHUNK_GUARDED_BY(mutex_);
};

// Appends what of `from` is not in `to`.
void AddMissing(std::vector<std::string>& to, const std::vector<std::string>& from);

}  // namespace peerchunk
