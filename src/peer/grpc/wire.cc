#include "peer/grpc/wire.h"

#include <charconv>

#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

absl::StatusOr<Availability> AvailabilityFromWire(v1::Availability wire) {
  switch (wire) {
    case v1::AVAILABLE:
      return Availability::kAvailable;
    case v1::NOT_AVAILABLE:
      return Availability::kNotAvailable;
    case v1::ABSENT:
      return Availability::kAbsent;
    case v1::USE_STORAGE:
      return Availability::kUseStorage;
    case v1::NOT_YET:
      return Availability::kNotYet;
    default:
      return absl::DataLossError(
          absl::StrCat("the peer sent an unknown availability (", static_cast<int>(wire), ")"));
  }
}

absl::StatusOr<BuildState> StateFromWire(v1::BuildState wire) {
  switch (wire) {
    case v1::BUILD_STATE_UNSPECIFIED:
      return BuildState::kUnknown;
    case v1::LOCAL:
      return BuildState::kLocal;
    case v1::UPLOADING:
      return BuildState::kUploading;
    case v1::DURABLE:
      return BuildState::kDurable;
    case v1::FAILED:
      return BuildState::kFailed;
    default:
      return absl::DataLossError(
          absl::StrCat("the peer sent an unknown build state (", static_cast<int>(wire), ")"));
  }
}

}  // namespace

absl::StatusOr<BuildStatus> StatusFromWire(const v1::BuildStatus& wire) {
  PEERCHUNK_ASSIGN_OR_RETURN(BuildState state, StateFromWire(wire.state()));
  return BuildStatus{state, wire.incarnation(), wire.state_seq()};
}

absl::StatusOr<FileHead> HeadFromWire(const v1::FileHead& wire) {
  FileHead head;
  PEERCHUNK_ASSIGN_OR_RETURN(head.availability, AvailabilityFromWire(wire.availability()));
  PEERCHUNK_ASSIGN_OR_RETURN(head.status, StatusFromWire(wire.status()));
  head.total_size = wire.total_size();
  if (wire.has_file_crc32c()) head.file_crc32c = wire.file_crc32c();
  if (const std::string& text = wire.version(); !text.empty()) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, head.version);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      return absl::DataLossError("the peer sent a version that is not a decimal number");
    }
  }
  head.in_base = wire.in_base();
  head.retry_after = absl::Milliseconds(wire.retry_after_ms());
  return head;
}

v1::BuildFile FileToWire(FileKind kind) {
  switch (kind) {
    case FileKind::kSnapfile:
      return v1::BUILD_FILE_SNAPFILE;
    case FileKind::kMetadata:
      return v1::BUILD_FILE_METADATA;
    case FileKind::kMemfileHeader:
      return v1::BUILD_FILE_MEMFILE_HEADER;
    case FileKind::kRootfsHeader:
      return v1::BUILD_FILE_ROOTFS_HEADER;
    case FileKind::kMemfile:
      return v1::BUILD_FILE_MEMFILE;
    case FileKind::kRootfs:
      return v1::BUILD_FILE_ROOTFS;
  }
  return v1::BUILD_FILE_UNSPECIFIED;
}

v1::GetBuildFileRequest RequestToWire(const PeerRequest& request) {
  v1::GetBuildFileRequest wire;
  wire.set_build_id(request.file.build.ToString());
  wire.set_file(FileToWire(request.file.kind));
  wire.set_offset(request.offset);
  if (request.length) wire.set_length(*request.length);
  wire.set_even_if_durable(request.even_if_durable);
  wire.set_relays_left(request.relays_left);
  wire.set_prefetch(request.prefetch);
  return wire;
}

}  // namespace peerchunk
