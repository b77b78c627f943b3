#include "peer/base_source.h"

#include "base/logging.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

BaseAdmission Refuse(absl::Status cause, bool complete = false) {
  const BaseOutcome outcome = OutcomeOf(cause);
  return {.outcome = outcome, .cause = std::move(cause), .complete = complete};
}

absl::StatusOr<ObjectStat> StatInBase(const SourceSet& sources, FileKind kind,
                                      const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Seekable> object, OpenInBase(sources, kind));
  return object->Stat(options);
}

enum class Comparison : uint8_t { kEqual, kUnknown, kDiffers };

Comparison Compare(const DeclaredFile& declared, const ObjectStat& stat) {
  if (declared.size != stat.size) return Comparison::kDiffers;
  if (!declared.crc32c || !stat.crc32c) return Comparison::kUnknown;
  return *declared.crc32c == *stat.crc32c ? Comparison::kEqual : Comparison::kDiffers;
}

}  // namespace

absl::Status FindComplete(const SourceSet& sources, const ReadOptions& options) {
  if (sources.knowledge->complete_in_base()) return absl::OkStatus();
  const auto marker = StatInBase(sources, FileKind::kMetadata, options);
  if (absl::IsNotFound(marker.status())) {
    return absl::NotFoundError("has no metadata.json: the build's upload is not complete");
  }
  PEERCHUNK_RETURN_IF_ERROR(marker);
  sources.knowledge->MarkCompleteInBase();
  return absl::OkStatus();
}

BaseOutcome OutcomeOf(const absl::Status& status) {
  return absl::IsNotFound(status) ? BaseOutcome::kMissing : BaseOutcome::kFailed;
}

absl::StatusOr<std::unique_ptr<Seekable>> OpenInBase(const SourceSet& sources, FileKind kind) {
  return sources.base->OpenSeekable(sources.FileId(kind).ObjectPath());
}

namespace {

// Holds the base's object against what is declared. NotFound: not a source yet.
absl::Status JudgeByDeclared(const SourceSet& sources, FileKind kind, BaseTrust trust,
                             const ObjectStat& stat, const ReadOptions& options) {
  BuildKnowledge& knowledge = *sources.knowledge;
  // Again when it was replaced meanwhile: what is declared now is what counts.
  while (const std::optional<DeclaredFile> declared = knowledge.Declared(kind)) {
    const Comparison comparison = Compare(*declared, stat);
    if (comparison == Comparison::kEqual) {
      if (knowledge.MarkBaseEqual(kind, *declared)) return absl::OkStatus();
      continue;
    }
    // metadata.json may be a newer version at the peer. The one here is older, and good: being
    // there at all, it says that the upload is complete.
    if (kind == FileKind::kMetadata) return absl::OkStatus();
    if (comparison == Comparison::kUnknown) {
      if (trust != BaseTrust::kIfEqual) return absl::OkStatus();
      return absl::NotFoundError("not a source yet: its object has no checksum to compare");
    }
    // A complete upload outweighs what a peer says.
    if (trust == BaseTrust::kIfEqual && !FindComplete(sources, options).ok()) {
      return absl::NotFoundError("not a source yet: its object is not what the peer declared");
    }
    const auto author = knowledge.Refute(kind, *declared, sources.clock().Now());
    if (!author) continue;
    sources.counters().quarantine_base_differs.Add();
    Logger("peer").error("event=quarantine reason=base_differs build={} file={} peer={}",
                         knowledge.build().ToString(), FileName(kind), *author);
    return absl::OkStatus();
  }
  // Nothing to compare with any more.
  return trust == BaseTrust::kIfEqual ? FindComplete(sources, options) : absl::OkStatus();
}

}  // namespace

BaseAdmission AdmitBase(const SourceSet& sources, FileKind kind, BaseTrust trust, bool want_stat,
                        const ReadOptions& options) {
  BuildKnowledge& knowledge = *sources.knowledge;
  const bool declared = knowledge.Declared(kind).has_value();
  // What the base was to be equal to may have been dropped since: then it is as if nobody had said.
  const bool if_complete =
      trust == BaseTrust::kIfComplete || (trust == BaseTrust::kIfEqual && !declared);
  if (if_complete && kind != FileKind::kMetadata) {
    if (absl::Status complete = FindComplete(sources, options); !complete.ok()) {
      return Refuse(std::move(complete));
    }
  }
  const bool compare = declared && !knowledge.BaseFoundEqual(kind);
  BaseAdmission admission{.complete = knowledge.complete_in_base()};
  if (!want_stat && !compare) return admission;
  auto stat = StatInBase(sources, kind, options);
  if (!stat.ok()) return Refuse(stat.status(), admission.complete);
  if (stat->size < options.least_size) {
    return Refuse(absl::DataLossError(absl::StrCat("its object has ", stat->size,
                                                   " bytes of a file that has at least ",
                                                   options.least_size)),
                  admission.complete);
  }
  admission.stat = *std::move(stat);
  if (!compare) return admission;
  if (absl::Status differs = JudgeByDeclared(sources, kind, trust, *admission.stat, options);
      !differs.ok()) {
    return Refuse(std::move(differs));
  }
  return admission;
}

}  // namespace peerchunk
