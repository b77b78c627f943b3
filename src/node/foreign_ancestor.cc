#include "node/foreign_ancestor.h"

#include <array>
#include <memory>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr absl::Duration kAskSource = absl::Seconds(3);
constexpr absl::Duration kAskBase = absl::Seconds(30);

enum class Answer : uint8_t {
  kNothing,  // No answer, or of a node that has no record of the build.
  kDurable,
  kHeld,       // Recorded there, and not durable.
  kDiscarded,  // Was recorded there.
};

Answer Ask(const BuildId& build, const PeerAddress& source, ChunkServiceConnector& connector,
           const std::stop_token& stop) {
  const auto client = connector.Connect(source, PeerLane::kDemand);
  if (!client.ok()) return Answer::kNothing;
  const absl::StatusOr<FileHead> head = (*client)->GetBuildFileInfo(
      {.file = {build, FileKind::kMetadata}},
      {.deadline = Clock::Real().Now() + kAskSource, .cancellation = stop});
  if (!head.ok()) return Answer::kNothing;
  switch (head->status.state) {
    case BuildState::kUnknown:
      return Answer::kNothing;
    case BuildState::kDurable:
      return Answer::kDurable;
    case BuildState::kLocal:
    case BuildState::kUploading:
      return Answer::kHeld;
    case BuildState::kFailed:
      return head->availability == Availability::kNotAvailable ? Answer::kDiscarded : Answer::kHeld;
  }
  return Answer::kNothing;
}

absl::StatusOr<bool> InBase(const BuildFileId& file, StorageProvider& base,
                            const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const auto blob, base.OpenBlob(file.ObjectPath()));
  return blob->Exists(options);
}

}  // namespace

absl::StatusOr<bool> CompleteInBase(const BuildId& build, StorageProvider& base,
                                    const ReadOptions& options) {
  for (const FileKind kind : {FileKind::kMetadata, FileKind::kRootfsHeader, FileKind::kRootfs}) {
    PEERCHUNK_ASSIGN_OR_RETURN(const bool there, InBase({build, kind}, base, options));
    if (!there) return false;
  }
  // All three, or of a filesystem-only build none.
  constexpr std::array kMemory = {FileKind::kMemfileHeader, FileKind::kMemfile,
                                  FileKind::kSnapfile};
  size_t found = 0;
  for (const FileKind kind : kMemory) {
    PEERCHUNK_ASSIGN_OR_RETURN(const bool there, InBase({build, kind}, base, options));
    if (there) ++found;
  }
  return found == 0 || found == kMemory.size();
}

absl::StatusOr<bool> ForeignAncestorIsDurable(const BuildId& ancestor,
                                              const std::vector<PeerAddress>& sources,
                                              ChunkServiceConnector& connector,
                                              StorageProvider& base, const std::stop_token& stop) {
  bool held = false;
  const PeerAddress* discarded_by = nullptr;
  for (const PeerAddress& source : sources) {
    switch (Ask(ancestor, source, connector, stop)) {
      case Answer::kNothing:
        break;
      case Answer::kDurable:
        return true;
      case Answer::kHeld:
        held = true;
        break;
      case Answer::kDiscarded:
        discarded_by = &source;
        break;
    }
  }
  if (held) return false;
  ReadOptions options;
  options.deadline = Clock::Real().Now() + kAskBase;
  options.cancellation = stop;
  PEERCHUNK_ASSIGN_OR_RETURN(const bool complete, CompleteInBase(ancestor, base, options));
  if (complete || discarded_by == nullptr) return complete;
  return absl::DataLossError(absl::StrCat(discarded_by->ToString(),
                                          " discarded its only copy, and ", base.Describe(),
                                          " does not have it"));
}

const PeerAddress* SourceAtWork(const BuildId& build, const std::vector<PeerAddress>& sources,
                                ChunkServiceConnector& connector) {
  for (const PeerAddress& source : sources) {
    if (Ask(build, source, connector, {}) == Answer::kHeld) return &source;
  }
  return nullptr;
}

}  // namespace peerchunk
