#pragma once

#include <memory>

#include "peer/source_set.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// The storage provider of one build: its six files come from its peers and its base, every other
// path and every write goes to the base. Made by PeerDirectory; thread-safe.
class PeerStorageProvider final : public StorageProvider {
 public:
  explicit PeerStorageProvider(std::shared_ptr<const SourceSet> sources)
      : sources_(std::move(sources)) {}

  absl::StatusOr<std::unique_ptr<Blob>> OpenBlob(std::string_view path) override;
  absl::StatusOr<std::unique_ptr<Seekable>> OpenSeekable(std::string_view path) override;
  absl::StatusOr<uint64_t> DeleteObjectsWithPrefix(std::string_view prefix,
                                                   const WriteOptions& options) override;
  absl::StatusOr<uint64_t> DiscardUnfinishedWrites(
      const std::function<bool(std::string_view path)>& goes_on,
      const WriteOptions& options) override;
  std::string Describe() const override;

 private:
  const std::shared_ptr<const SourceSet> sources_;
};

}  // namespace peerchunk
