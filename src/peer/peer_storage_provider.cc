#include "peer/peer_storage_provider.h"

#include <optional>

#include "peer/peer_blob.h"
#include "peer/peer_seekable.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

std::optional<FileKind> FileOf(const SourceSet& sources, std::string_view path) {
  const std::optional<BuildFileId> file = BuildFileId::FromObjectPath(path);
  if (!file || file->build != sources.knowledge->build()) return std::nullopt;
  return file->kind;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Blob>> PeerStorageProvider::OpenBlob(std::string_view path) {
  const std::optional<FileKind> kind = FileOf(*sources_, path);
  if (!kind || IsSeekable(*kind)) return sources_->base->OpenBlob(path);
  return std::make_unique<PeerBlob>(sources_, *kind);
}

absl::StatusOr<std::unique_ptr<Seekable>> PeerStorageProvider::OpenSeekable(std::string_view path) {
  const std::optional<FileKind> kind = FileOf(*sources_, path);
  if (!kind || !IsSeekable(*kind)) return sources_->base->OpenSeekable(path);
  return std::make_unique<PeerSeekable>(sources_, *kind);
}

absl::StatusOr<uint64_t> PeerStorageProvider::DeleteObjectsWithPrefix(std::string_view prefix,
                                                                      const WriteOptions& options) {
  auto deleted = sources_->base->DeleteObjectsWithPrefix(prefix, options);
  if (prefix.starts_with(sources_->knowledge->build().ToString())) {
    for (const FileKind kind : kAllFileKinds) sources_->knowledge->Forget(kind);
  }
  return deleted;
}

absl::StatusOr<uint64_t> PeerStorageProvider::DiscardUnfinishedWrites(
    const std::function<bool(std::string_view path)>& goes_on, const WriteOptions& options) {
  return sources_->base->DiscardUnfinishedWrites(goes_on, options);
}

std::string PeerStorageProvider::Describe() const {
  std::string text;
  for (const auto& peer : sources_->peers) {
    absl::StrAppend(&text, text.empty() ? "peers " : ", ", peer->address().ToString());
  }
  return absl::StrCat(text, text.empty() ? "" : ", then ", sources_->base->Describe());
}

}  // namespace peerchunk
