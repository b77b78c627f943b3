#include <algorithm>
#include <utility>

#include "base/logging.h"
#include "peer/source_reader.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// While a peer might still help, ranges are read from the base in windows, each with its own limit.
constexpr uint64_t kWindowBytes = 16 * kMiB;
// A base that is slower than this over a whole window is left; one that makes progress is not.
constexpr uint64_t kBaseBytesPerSecond = 2 * kMiB;
constexpr uint32_t kMostDoublings = 6;
// In a round in which all peers have failed already.
constexpr int kPatienceWithoutPeers = 4;
// An object that changes more often while it is read once is left alone for a round.
constexpr uint32_t kMostReplaced = 3;

}  // namespace

ReadOptions SourceReader::BaseOptions(uint64_t bytes) const {
  ReadOptions options = options_;
  options.version = base_version_ ? base_version_ : options_.version;
  options.deadline = Limit();
  if (!PeersMayHelp()) return options;
  const absl::Duration budget =
      sources_->budgets().base_stall +
      absl::Seconds(static_cast<double>(std::min(bytes, kWindowBytes)) / kBaseBytesPerSecond);
  // Longer each time, so that a base that is merely slow gets there in the end.
  const auto factor = 1u << std::min(base_failures_, kMostDoublings);
  const int patience = PeersLeft() ? 1 : kPatienceWithoutPeers;
  options.deadline = std::min(options.deadline, Now() + budget * factor * patience);
  return options;
}

absl::Status SourceReader::StartBase() {
  BeginBaseWindow(0);  // None of an earlier one counts.
  if (size_ && !end_ && !plan_.head_only) return absl::OkStatus();  // The range is judged first.
  // More than one request for one run of bytes: all of them to the same version of the object.
  const bool several = plan_.into == nullptr && RemainingLength() > kWindowBytes && PeersLeft();
  // What a convicted peer said of the file is gone; bytes of it are out of our hands.
  const bool doubtful = from_peer_ && !size_;
  const bool want_stat = plan_.head_only || plan_.whole || doubtful || (several && !base_version_);
  if (options_.sources == SourcePolicy::kBaseOnly && !want_stat) {
    at_ = At::kBase;
    return absl::OkStatus();
  }
  durable_before_base_ = knowledge().durable();
  const BaseAdmission admission =
      AdmitBase(*sources_, plan_.kind, Trust(), want_stat, BaseOptions(0));
  base_complete_ = admission.complete;
  if (admission.outcome != BaseOutcome::kUntried) return OnBaseEnd(admission.cause);
  if (admission.stat) PEERCHUNK_RETURN_IF_ERROR(TakeStat(*admission.stat));
  at_ = At::kBase;
  return absl::OkStatus();
}

absl::Status SourceReader::TakeStat(const ObjectStat& stat) {
  if (plan_.head_only) {
    stat_ = stat;
    size_from_base_ = true;
    return absl::OkStatus();
  }
  const bool checked_whole =
      plan_.offset == 0 && stat.crc32c && (!plan_.length || *plan_.length >= stat.size);
  const bool other_file =
      (size_ && *size_ != stat.size) ||
      (file_crc32c_ && stat.crc32c && *file_crc32c_ != *stat.crc32c && !checked_whole);
  if (from_peer_ && !size_from_base_ && other_file) {
    return absl::DataLossError(absl::StrCat("a peer sent bytes of another file than ",
                                            sources_->base->Describe(), " has, of ", stat.size,
                                            " bytes"));
  }
  if (size_ != stat.size) end_.reset();
  size_ = stat.size;
  size_from_base_ = true;
  // Bytes of two sources add up to what the base has.
  if (stat.crc32c) file_crc32c_ = stat.crc32c;
  base_version_ = stat.version;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<SourceReader::Piece>> SourceReader::ReadBase() {
  if (base_object_ == nullptr) {
    PEERCHUNK_ASSIGN_OR_RETURN(base_object_, OpenInBase(*sources_, plan_.kind));
  }
  if (plan_.into != nullptr) return ReadBaseInto();
  if (base_reader_ == nullptr) {
    if (absl::Status opened = OpenBaseWindow(); !opened.ok()) {
      PEERCHUNK_RETURN_IF_ERROR(OnBaseEnd(opened));
      return MaybePiece();
    }
  }
  const auto extent = base_reader_->Next();
  if (!extent.ok()) {
    PEERCHUNK_RETURN_IF_ERROR(OnBaseEnd(extent.status()));
    return MaybePiece();
  }
  if (extent->has_value()) return Accept(**extent, std::nullopt);
  base_reader_.reset();
  const bool full = reached_ - window_begin_ == window_length_;
  if (full && RemainingLength() > 0) return MaybePiece();  // The next window.
  if (full || !end_) {
    end_ = reached_;
    return MaybePiece();
  }
  PEERCHUNK_RETURN_IF_ERROR(OnBaseEnd(EndsBeforeItsSize(reached_)));
  return MaybePiece();
}

absl::Status SourceReader::EndsBeforeItsSize(uint64_t offset) {
  return absl::DataLossError(absl::StrCat("the object ended at ", offset, " before its size"));
}

void SourceReader::BeginBaseWindow(uint64_t length) {
  window_begin_ = reached_;
  window_began_ = Now();
  window_length_ = length;
}

absl::Status SourceReader::OpenBaseWindow() {
  uint64_t length = RemainingLength();
  if (length == UINT64_MAX) length -= reached_;
  if (PeersLeft()) length = std::min(length, kWindowBytes);
  BeginBaseWindow(length);
  PEERCHUNK_ASSIGN_OR_RETURN(base_reader_,
                             base_object_->OpenRangeReader(reached_, length, BaseOptions(length)));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<SourceReader::Piece>> SourceReader::ReadBaseInto() {
  const uint64_t wanted = RemainingLength();
  char* const to = plan_.into + (reached_ - plan_.offset);
  BeginBaseWindow(wanted);
  const auto read = base_object_->ReadAt(reached_, absl::MakeSpan(to, wanted), BaseOptions(wanted));
  if (!read.ok()) {
    PEERCHUNK_RETURN_IF_ERROR(OnBaseEnd(read.status()));
    return MaybePiece();
  }
  if (*read < wanted) {
    if (end_) {
      PEERCHUNK_RETURN_IF_ERROR(OnBaseEnd(EndsBeforeItsSize(reached_ + *read)));
      return MaybePiece();
    }
    end_ = reached_ + *read;
  }
  if (*read == 0) {
    if (!end_) end_ = reached_;
    return MaybePiece();
  }
  base_piece_ = {std::string_view(to, *read)};
  return Accept({.offset = reached_, .length = *read, .pieces = base_piece_}, std::nullopt);
}

// Of a file that the base was found not to have. Only what was there before that look counts.
bool SourceReader::BuildLacksFile() const {
  if (plan_.kind == FileKind::kMetadata || knowledge().Declared(plan_.kind)) return false;
  return base_complete_ || (durable_before_base_ && FindComplete(*sources_, BaseOptions(0)).ok());
}

absl::Status SourceReader::OnBaseEnd(const absl::Status& cause) {
  base_reader_.reset();
  at_ = At::kNowhere;
  base_cause_ = cause;
  const bool ran_out = absl::IsDeadlineExceeded(cause) || absl::IsCancelled(cause);
  if (ran_out) PEERCHUNK_RETURN_IF_ERROR(CheckCaller());
  const double came = static_cast<double>(reached_ - window_begin_);
  if (absl::IsDeadlineExceeded(cause) && came > 0 &&
      came >= absl::ToDoubleSeconds(Now() - window_began_) *
                  static_cast<double>(sources_->budgets().floor_bytes_per_second)) {
    at_ = At::kBase;  // The window was too large for its limit; bytes did come.
    return absl::OkStatus();
  }
  if (absl::IsOutOfRange(cause) && !size_) return cause;
  if (absl::IsAborted(cause) && base_version_) {
    // Replaced since this read looked at it.
    if (!plan_.whole && reached_ > plan_.offset) return cause;
    base_version_.reset();
    RestartIfWhole();
    TakeDeclared();
    if (++replaced_ <= kMostReplaced) return absl::OkStatus();
  }
  base_ = OutcomeOf(cause);
  if (base_ == BaseOutcome::kMissing && BuildLacksFile()) base_ = BaseOutcome::kAbsent;
  ++base_failures_;
  RestartIfWhole();
  RecordBaseEnd(cause);
  return absl::OkStatus();
}

void SourceReader::RecordBaseEnd(const absl::Status& cause) {
  const absl::Time now = Now();
  const bool missing = base_ == BaseOutcome::kMissing || base_ == BaseOutcome::kAbsent;
  if (missing) knowledge().NoteBaseMissing(plan_.kind, now);
  if (!PeersMayHelp()) return;  // Nobody to switch to, now or later.
  const ReadCounters& counters = sources_->counters();
  const bool stalled = absl::IsDeadlineExceeded(cause);
  Counter& counter = missing   ? counters.base_missing
                     : stalled ? counters.base_stalled
                               : counters.base_failed;
  counter.Add();
  if (stalled) counters.stalls.Add();
  const auto unlogged = knowledge().MayLogBase(now);
  if (!unlogged) return;
  Logger("peer").info(
      "event=leave_base reason={} build={} file={} offset={} unlogged={} cause=\"{}\"",
      missing   ? "base_missing"
      : stalled ? "base_stalled"
                : "base_failed",
      knowledge().build().ToString(), FileName(plan_.kind), reached_, *unlogged,
      std::string_view(cause.message().data(), cause.message().size()));
}

}  // namespace peerchunk
