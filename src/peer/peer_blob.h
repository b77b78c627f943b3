#pragma once

#include <memory>

#include "peer/source_reader.h"
#include "peer/source_set.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// A blob of one build, read from its peers and its base. Headers and metadata.json are gathered
// whole in bounded memory, from one source, and handed on once they are known to be good; a
// snapfile is handed on extent by extent and goes on at the byte reached. Writes go to the base.
// Thread-safe.
class PeerBlob final : public Blob {
 public:
  PeerBlob(std::shared_ptr<const SourceSet> sources, FileKind kind)
      : sources_(std::move(sources)), kind_(kind) {}

  absl::Status WriteTo(ByteSink& sink, const ReadOptions& options) override;
  absl::StatusOr<ObjectStat> Put(std::string_view bytes, const WriteOptions& options) override;
  absl::StatusOr<bool> Exists(const ReadOptions& options) override;
  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override;

 private:
  SourceReader::Plan ReadPlan() const;
  absl::Status WriteWhole(SourceReader& reader, ByteSink& sink) const;

  const std::shared_ptr<const SourceSet> sources_;
  const FileKind kind_;
};

}  // namespace peerchunk
