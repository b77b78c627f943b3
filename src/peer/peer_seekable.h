#pragma once

#include <memory>

#include "peer/source_set.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// A diff of one build, read by range from its peers and its base, each range on at the byte reached
// when its source changes. Demand reads and bulk transfers travel on lanes of their own. Writes go
// to the base. Thread-safe.
class PeerSeekable final : public Seekable {
 public:
  PeerSeekable(std::shared_ptr<const SourceSet> sources, FileKind kind)
      : sources_(std::move(sources)), kind_(kind) {}

  absl::StatusOr<uint64_t> Size(const ReadOptions& options) override;
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override;
  absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(uint64_t offset, uint64_t length,
                                                               const ReadOptions& options) override;
  absl::StatusOr<ObjectStat> StoreFile(const std::string& path,
                                       const WriteOptions& options) override;
  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override;

 private:
  const std::shared_ptr<const SourceSet> sources_;
  const FileKind kind_;
};

}  // namespace peerchunk
