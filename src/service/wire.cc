#include "service/wire.h"

#include <string>

#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

v1::Availability AvailabilityToWire(Availability availability) {
  switch (availability) {
    case Availability::kAvailable:
      return v1::AVAILABLE;
    case Availability::kNotAvailable:
      return v1::NOT_AVAILABLE;
    case Availability::kAbsent:
      return v1::ABSENT;
    case Availability::kUseStorage:
      return v1::USE_STORAGE;
    case Availability::kNotYet:
      return v1::NOT_YET;
  }
  return v1::AVAILABILITY_UNSPECIFIED;
}

v1::BuildState StateToWire(BuildState state) {
  switch (state) {
    case BuildState::kUnknown:
      return v1::BUILD_STATE_UNSPECIFIED;
    case BuildState::kLocal:
      return v1::LOCAL;
    case BuildState::kUploading:
      return v1::UPLOADING;
    case BuildState::kDurable:
      return v1::DURABLE;
    case BuildState::kFailed:
      return v1::FAILED;
  }
  return v1::BUILD_STATE_UNSPECIFIED;
}

std::optional<FileKind> KindFromWire(v1::BuildFile file) {
  switch (file) {
    case v1::BUILD_FILE_SNAPFILE:
      return FileKind::kSnapfile;
    case v1::BUILD_FILE_METADATA:
      return FileKind::kMetadata;
    case v1::BUILD_FILE_MEMFILE_HEADER:
      return FileKind::kMemfileHeader;
    case v1::BUILD_FILE_ROOTFS_HEADER:
      return FileKind::kRootfsHeader;
    case v1::BUILD_FILE_MEMFILE:
      return FileKind::kMemfile;
    case v1::BUILD_FILE_ROOTFS:
      return FileKind::kRootfs;
    default:
      return std::nullopt;
  }
}

}  // namespace

void StatusToWire(const BuildStatus& status, v1::BuildStatus* wire) {
  wire->set_state(StateToWire(status.state));
  wire->set_incarnation(status.incarnation);
  wire->set_state_seq(status.sequence);
}

void HeadToWire(const FileHead& head, v1::FileHead* wire) {
  wire->set_availability(AvailabilityToWire(head.availability));
  StatusToWire(head.status, wire->mutable_status());
  wire->set_total_size(head.total_size);
  if (head.file_crc32c) wire->set_file_crc32c(*head.file_crc32c);
  if (head.version != 0) wire->set_version(std::to_string(head.version));
  wire->set_in_base(head.in_base);
  wire->set_retry_after_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(head.retry_after)));
}

absl::StatusOr<BuildFileId> FileFromWire(const std::string& build_id, v1::BuildFile file) {
  PEERCHUNK_ASSIGN_OR_RETURN(const BuildId build, BuildId::Parse(build_id));
  if (build.is_nil()) return absl::InvalidArgumentError("the nil UUID names no build");
  const std::optional<FileKind> kind = KindFromWire(file);
  if (!kind) {
    return absl::InvalidArgumentError(absl::StrCat("unknown build file ", static_cast<int>(file)));
  }
  return BuildFileId{build, *kind};
}

}  // namespace peerchunk
