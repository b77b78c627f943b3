#include "peer/wire/wire.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

#include "peerchunk/base/status.h"
#include "peerchunk/v1/chunk_service.pb.h"

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

absl::StatusOr<BuildStatus> StatusFromWire(const v1::BuildStatus& wire) {
  PEERCHUNK_ASSIGN_OR_RETURN(BuildState state, StateFromWire(wire.state()));
  return BuildStatus{state, wire.incarnation(), wire.state_seq()};
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

void RequestToWire(const PeerRequest& request, v1::GetBuildFileRequest& wire) {
  wire.set_build_id(request.file.build.ToString());
  wire.set_file(FileToWire(request.file.kind));
  wire.set_offset(request.offset);
  if (request.length) wire.set_length(*request.length);
  wire.set_even_if_durable(request.even_if_durable);
  wire.set_relays_left(request.relays_left);
  wire.set_prefetch(request.prefetch);
}

}  // namespace

absl::StatusOr<BuildStatus> DecodeStatus(const std::string& bytes) {
  v1::BuildStatus wire;
  if (!wire.ParseFromString(bytes)) return absl::DataLossError("malformed status from the peer");
  return StatusFromWire(wire);
}

absl::StatusOr<FileHead> DecodeHead(const std::string& bytes) {
  v1::FileHead wire;
  if (!wire.ParseFromString(bytes)) return absl::DataLossError("malformed head from the peer");
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

std::string EncodeGetBuildFile(const PeerRequest& request) {
  v1::GetBuildFileRequest wire;
  RequestToWire(request, wire);
  return wire.SerializeAsString();
}

std::string EncodeGetBuildFileInfo(const PeerRequest& request) {
  v1::GetBuildFileInfoRequest wire;
  wire.set_build_id(request.file.build.ToString());
  wire.set_file(FileToWire(request.file.kind));
  wire.set_even_if_durable(request.even_if_durable);
  wire.set_relays_left(request.relays_left);
  return wire.SerializeAsString();
}

std::string PeerText(std::string_view text) {
  constexpr size_t kMostBytes = 1024;
  std::string fit(text.substr(0, kMostBytes));
  for (char& c : fit) {
    if (c < ' ' || c > '~' || c == '"' || c == '\\') c = '?';
  }
  return fit;
}

absl::Status StatusFromCode(int code, std::string_view message) {
  if (code == 0) return absl::OkStatus();
  const bool known = code > 0 && code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  return absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
                      PeerText(message));
}

absl::Status WithRetryAfterText(absl::Status status, std::string_view milliseconds) {
  uint32_t ms = 0;
  const char* const end = milliseconds.data() + milliseconds.size();
  if (std::from_chars(milliseconds.data(), end, ms).ec != std::errc()) return status;
  return WithRetryAfter(std::move(status), absl::Milliseconds(ms));
}

absl::Status MessageTooLarge(std::string_view what) {
  return absl::DataLossError(
      absl::StrCat("the peer sent a message over the limit: ", AbslView(what)));
}

absl::Status PlaintextRefused(const PeerAddress& address) {
  return absl::PermissionDeniedError(
      absl::StrCat("will not dial ", address.ToString(),
                   " in plaintext: give TLS credentials, or allow it by name with "
                   "--insecure-plaintext"));
}

void ReadRequests::Add(uint64_t id, const PeerRequest& request, absl::Time deadline) {
  if (under_way_ < kMostUnderWay && held_.empty()) {
    Append(id, request, deadline);
  } else {
    held_.emplace(id, Held{request, deadline});
  }
}

void ReadRequests::Append(uint64_t id, const PeerRequest& request, absl::Time deadline) {
  ++under_way_;
  // A message of repeated fields is the concatenation of messages with one each.
  v1::ReadBuildFileRequest wire;
  v1::FileRead* const read = wire.add_reads();
  read->set_id(id);
  RequestToWire(request, *read->mutable_read());
  if (deadline != absl::InfiniteFuture()) {
    read->set_timeout_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(
        std::clamp(deadline - clock_.Now(), absl::Milliseconds(1), absl::Hours(24)))));
  }
  wire.AppendToString(&bytes_);
  entries_.push_back({.end = bytes_.size(), .read = id});
}

void ReadRequests::Remove(uint64_t id, bool answered) {
  if (held_.erase(id) > 0) return;
  --under_way_;
  if (!answered) {
    v1::ReadBuildFileRequest wire;
    wire.add_cancelled(id);
    wire.AppendToString(&bytes_);
    entries_.push_back({.end = bytes_.size(), .read = std::nullopt});
  }
  while (under_way_ < kMostUnderWay && !held_.empty()) {
    const auto next = held_.extract(held_.begin());
    Append(next.key(), next.mapped().request, next.mapped().deadline);
  }
}

ReadRequests::Message ReadRequests::Take(size_t count) {
  Message message;
  size_t taken = 0;
  size_t reads = 0;
  auto rest = entries_.begin();
  for (; rest != entries_.end() && count > 0; ++rest, --count) {
    if (rest->end > kMostMessageBytes || (rest->read && reads == kMostUnderWay)) break;
    if (rest->read) {
      message.last_read = rest->read;
      ++reads;
    }
    taken = rest->end;
  }
  entries_.erase(entries_.begin(), rest);
  for (Entry& entry : entries_) entry.end -= taken;
  std::string left = bytes_.substr(taken);
  bytes_.resize(taken);
  message.bytes = std::exchange(bytes_, std::move(left));
  return message;
}

}  // namespace peerchunk
