#include "upload/build_upload.h"

#include <memory>

#include "peerchunk/base/status.h"

namespace peerchunk {

using Kind = AttemptResult::Kind;

AttemptResult BuildUpload::Attempt(const BuildId& id, const std::stop_token& stop) {
  const std::shared_ptr<const RecordedBuild> before = registry_->Find(id);
  if (before == nullptr || before->status.state == BuildState::kFailed) return {};
  absl::StatusOr<AttemptResult> result = Proceed(*before, stop);
  if (result.ok()) return *std::move(result);
  // What went wrong may be that the build was removed, or found corrupt, meanwhile.
  const std::shared_ptr<const RecordedBuild> after = registry_->Find(id);
  if (after == nullptr || after->status.state == BuildState::kFailed) return {};
  return {absl::IsAlreadyExists(result.status()) ? Kind::kGiveUp : Kind::kRetry, result.status()};
}

absl::StatusOr<AttemptResult> BuildUpload::Proceed(const RecordedBuild& build,
                                                   const std::stop_token& stop) {
  if (build.status.state == BuildState::kDurable) {
    if (HeldByBase(build)) return AttemptResult{};
    PEERCHUNK_RETURN_IF_ERROR(UploadAndConfirm(build, FileKind::kMetadata, stop));
    return AttemptResult{Kind::kMetadata, absl::OkStatus()};
  }
  PEERCHUNK_RETURN_IF_ERROR(registry_->MarkUploading(build.id));
  for (const FileKind kind : {FileKind::kMemfile, FileKind::kRootfs, FileKind::kSnapfile}) {
    PEERCHUNK_RETURN_IF_ERROR(UploadAndConfirm(build, kind, stop));
  }
  if (const absl::Status missing = CheckAncestors(build, stop); !missing.ok()) {
    return AttemptResult{absl::IsDataLoss(missing) ? Kind::kGiveUp : Kind::kWaiting, missing};
  }
  for (const FileKind kind : {FileKind::kMemfileHeader, FileKind::kRootfsHeader}) {
    PEERCHUNK_RETURN_IF_ERROR(UploadAndConfirm(build, kind, stop));
  }
  const std::shared_ptr<const RecordedBuild> now = registry_->Find(build.id);
  if (now == nullptr) return AttemptResult{};
  PEERCHUNK_RETURN_IF_ERROR(CheckStillThere(*now, stop));
  // Its presence says that all the rest is there. It may have been replaced since; and what an
  // earlier attempt had confirmed of it is looked at again like the rest.
  PEERCHUNK_RETURN_IF_ERROR(objects_.Upload(*now, FileKind::kMetadata, stop));
  PEERCHUNK_RETURN_IF_ERROR(
      registry_->ConfirmInBase({build.id, FileKind::kMetadata}, now->metadata_version));
  PEERCHUNK_RETURN_IF_ERROR(registry_->MarkDurable(build.id));
  return AttemptResult{Kind::kDurable, absl::OkStatus()};
}

absl::Status BuildUpload::UploadAndConfirm(const RecordedBuild& build, FileKind kind,
                                           const std::stop_token& stop) {
  const auto file = build.files.find(kind);
  if (file == build.files.end() || file->second.in_base) return absl::OkStatus();
  PEERCHUNK_RETURN_IF_ERROR(objects_.Upload(build, kind, stop));
  return registry_->ConfirmInBase({build.id, kind}, build.metadata_version);
}

// What was confirmed, a moment or a restart ago, may have been deleted since.
absl::Status BuildUpload::CheckStillThere(const RecordedBuild& build, const std::stop_token& stop) {
  std::string gone;
  for (const auto& [kind, file] : build.files) {
    if (kind == FileKind::kMetadata) continue;
    PEERCHUNK_ASSIGN_OR_RETURN(const bool there, objects_.IsInBase(build, kind, stop));
    if (there) continue;
    PEERCHUNK_RETURN_IF_ERROR(registry_->DropInBase({build.id, kind}));
    absl::StrAppend(&gone, gone.empty() ? "" : ", ", AbslView(FileName(kind)));
  }
  if (gone.empty()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("the base had confirmed ", gone, " and no longer has it: it is sent again"));
}

absl::Status BuildUpload::CheckAncestors(const RecordedBuild& build, const std::stop_token& stop) {
  for (const BuildId& ancestor : build.ancestors) {
    const auto waiting = [&](std::string_view why) {
      return absl::UnavailableError(
          absl::StrCat("waits for its ancestor ", ancestor.ToString(), ": ", AbslView(why)));
    };
    if (const auto recorded = registry_->Find(ancestor); recorded != nullptr) {
      if (recorded->status.state != BuildState::kDurable) {
        return waiting(
            absl::StrCat("it is ", AbslView(BuildStateName(recorded->status.state)), " here"));
      }
      continue;
    }
    {
      const MutexLock lock(mutex_);
      if (known_durable_.contains(ancestor)) continue;
    }
    absl::StatusOr<bool> durable = ancestor_is_durable_(ancestor, stop);
    if (durable.ok() && !*durable && registry_->Discarded(ancestor)) {
      durable = absl::DataLossError("its only copy was discarded here");
    }
    if (absl::IsDataLoss(durable.status())) {
      return absl::DataLossError(absl::StrCat("its ancestor ", ancestor.ToString(),
                                              " is lost: ", durable.status().message()));
    }
    if (!durable.ok()) return waiting(std::string(durable.status().message()));
    if (!*durable) return waiting("it is not durable yet");
    const MutexLock lock(mutex_);
    known_durable_.insert(ancestor);
  }
  return absl::OkStatus();
}

}  // namespace peerchunk
