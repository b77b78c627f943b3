#include "node/foreign_ancestor.h"

#include "peerchunk/base/clock.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr absl::Duration kAskSource = absl::Seconds(3);
constexpr absl::Duration kAskBase = absl::Seconds(30);

absl::StatusOr<bool> InBase(const BuildFileId& file, StorageProvider& base,
                            const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const auto blob, base.OpenBlob(file.ObjectPath()));
  return blob->Exists(options);
}

}  // namespace

absl::StatusOr<bool> ForeignAncestorIsDurable(const BuildId& ancestor,
                                              const std::vector<std::string>& sources,
                                              PeerDirectory& directory,
                                              const std::shared_ptr<StorageProvider>& base) {
  if (directory.KnownDurable(ancestor)) return true;
  const BuildFileId metadata{ancestor, FileKind::kMetadata};
  if (!sources.empty()) {
    // Any answer of the source carries the build's state, which the directory keeps.
    PEERCHUNK_ASSIGN_OR_RETURN(const auto provider, directory.OpenBuild(ancestor, sources, base));
    PEERCHUNK_ASSIGN_OR_RETURN(const auto blob, provider->OpenBlob(metadata.ObjectPath()));
    ReadOptions ask;
    ask.deadline = Clock::Real().Now() + kAskSource;
    ask.sources = SourcePolicy::kPeerOnly;
    const auto answered = blob->Exists(ask);
    if (directory.KnownDurable(ancestor)) return true;
    if (answered.ok()) return false;  // The source is there and has not said so.
  }
  ReadOptions options;
  options.deadline = Clock::Real().Now() + kAskBase;
  PEERCHUNK_ASSIGN_OR_RETURN(const bool complete, InBase(metadata, *base, options));
  if (!complete) return false;
  for (const FileKind diff : {FileKind::kRootfs, FileKind::kMemfile}) {
    PEERCHUNK_ASSIGN_OR_RETURN(const bool header,
                               InBase({ancestor, HeaderOf(diff)}, *base, options));
    if (!header) {
      if (diff == FileKind::kRootfs) return false;
      continue;  // A filesystem-only build.
    }
    PEERCHUNK_ASSIGN_OR_RETURN(const bool there, InBase({ancestor, diff}, *base, options));
    if (!there) return false;
  }
  return true;
}

}  // namespace peerchunk
