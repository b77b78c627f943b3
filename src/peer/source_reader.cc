#include "peer/source_reader.h"

#include <algorithm>
#include <utility>

#include "base/logging.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr absl::Duration kLongestBackoff = absl::Seconds(2);
// Less time than this is not worth another round.
constexpr absl::Duration kShortestRound = absl::Milliseconds(2);

}  // namespace

SourceReader::SourceReader(std::shared_ptr<const SourceSet> sources, const Plan& plan,
                           ReadOptions options)
    : sources_(std::move(sources)),
      plan_(plan),
      options_(std::move(options)),
      random_(static_cast<uint32_t>(sources_->directory->NextSeed())),
      reached_(plan.offset),
      progress_at_(sources_->clock().Now()),
      returned_at_(progress_at_),
      round_(sources_->peers.size()),
      round_began_(progress_at_),
      backoff_(sources_->budgets().retry_backoff) {
  TakeDeclared();
}

void SourceReader::TakeDeclared() {
  size_.reset();
  end_.reset();
  file_crc32c_.reset();
  size_from_base_ = false;
  // What is replaced while a build lives is asked for each time.
  if (plan_.kind == FileKind::kMetadata || options_.sources == SourcePolicy::kBaseOnly) return;
  const std::optional<DeclaredFile> declared = knowledge().Declared(plan_.kind);
  if (!declared) return;
  if (declared->size < options_.least_size) return RefuteTooSmall(*declared);
  size_ = declared->size;
  file_crc32c_ = declared->crc32c;
}

void SourceReader::RefuteTooSmall(const DeclaredFile& declared) {
  const auto author = knowledge().Refute(plan_.kind, declared, Now());
  if (!author) return;
  sources_->counters().quarantines[static_cast<size_t>(PeerEvent::kContradiction)]->Add();
  Logger("peer").error(
      "event=quarantine reason=contradiction build={} file={} peer={} declared={} least={}",
      knowledge().build().ToString(), FileName(plan_.kind), *author, declared.size,
      options_.least_size);
}

SourceReader::~SourceReader() { LeavePeer(); }

absl::StatusOr<std::optional<SourceReader::Piece>> SourceReader::Next() {
  if (!failed_.ok()) return failed_;
  PassOverAbsence();
  auto piece = Advance();
  returned_at_ = Now();
  if (piece.ok()) return piece;
  LeavePeer();
  base_reader_.reset();
  std::string range;
  if (!plan_.head_only) {
    range = absl::StrCat(" [", plan_.offset, ", +");
    if (plan_.length) absl::StrAppend(&range, *plan_.length);
    range += ")";
  }
  failed_ = Annotate(piece.status(),
                     absl::StrCat("read ", sources_->FileId(plan_.kind).ObjectPath(), range));
  return failed_;
}

void SourceReader::PassOverAbsence() {
  const absl::Duration away = Now() - returned_at_;
  progress_at_ += away;
  round_began_ += away;
  window_began_ += away;
}

absl::StatusOr<ObjectStat> SourceReader::Stat() {
  PEERCHUNK_RETURN_IF_ERROR(Next());
  return *stat_;
}

absl::StatusOr<std::optional<SourceReader::Piece>> SourceReader::Advance() {
  while (true) {
    if (done_ || (plan_.head_only && stat_)) return std::nullopt;
    if (size_ && !plan_.head_only && !end_) PEERCHUNK_RETURN_IF_ERROR(ClipRange());
    if (end_ && reached_ == *end_) {
      HearLastMessage();
      LeavePeer();
      done_ = true;
      return std::nullopt;
    }
    PEERCHUNK_RETURN_IF_ERROR(CheckCaller());
    absl::StatusOr<MaybePiece> piece = MaybePiece();
    switch (at_) {
      case At::kNowhere:
        PEERCHUNK_RETURN_IF_ERROR(Choose());
        break;
      case At::kPeer:
        piece = ReadPeer();
        break;
      case At::kHedge:
        piece = ReadHedge();
        break;
      case At::kBase:
        piece = ReadBase();
        break;
    }
    if (!piece.ok() || piece->has_value()) return piece;
  }
}

absl::Status SourceReader::ClipRange() {
  const auto range = ByteRange::Clip(plan_.offset, plan_.length, *size_);
  if (!range) return absl::OutOfRangeError(absl::StrCat("the file has ", *size_, " bytes"));
  if (range->end() < reached_) {
    return absl::DataLossError(
        absl::StrCat("a peer sent bytes up to ", reached_, " of a file that has ", *size_));
  }
  end_ = range->end();
  return absl::OkStatus();
}

absl::Status SourceReader::Choose() {
  const Choice choice = ChooseNext(View(), Now());
  switch (choice.kind) {
    case Choice::Kind::kPeer:
      return StartPeer(choice.peer);
    case Choice::Kind::kBase:
      return StartBase();
    case Choice::Kind::kNextRound:
      return WaitForNextRound(choice.not_before);
    case Choice::Kind::kNotFound:
      return absl::NotFoundError(absl::StrCat("no source has it: ", Causes()));
    case Choice::Kind::kBaseError:
      return base_cause_;
  }
  return absl::InternalError("no such choice");
}

absl::Status SourceReader::WaitForNextRound(absl::Time not_before) {
  waited_ = true;
  const absl::Time now = Now();
  const absl::Duration left = Limit() - now;
  if (left < kShortestRound) return OutOfTime();
  // Half to all of the step, so that readers that failed together do not come back together.
  const double share = std::uniform_real_distribution<>(0.5, 1.0)(random_);
  absl::Duration wait = backoff_ * share;
  backoff_ = std::min(backoff_ * 2, kLongestBackoff);
  wait = std::max(wait, not_before - now);
  if (wait >= left) wait = left / 2;  // Towards the deadline, not past it.
  sources_->clock().SleepUntil(now + wait, options_.cancellation);
  for (PeerRound& peer : round_) peer.tried = false;
  base_ = BaseOutcome::kUntried;
  round_began_ = Now();
  return CheckCaller();
}

SelectionView SourceReader::View() const {
  SelectionView view;
  view.sources = options_.sources;
  view.base_first = storage_said_ || (knowledge().durable() && plan_.kind != FileKind::kMetadata);
  view.base = base_;
  const absl::Time now = Now();
  for (size_t i = 0; i < round_.size(); ++i) {
    const PeerLink& link = *sources_->peers[i];
    const BuildKnowledge::View known = knowledge().ViewOf(link.standing(), now);
    view.peers.push_back(
        {.demoted = known.demoted || link.state().breaker.Demotes(now, !plan_.head_only),
         .tried = round_[i].tried,
         .answer = round_[i].answer,
         .not_before = std::max(round_[i].not_before, known.not_before)});
  }
  return view;
}

BaseTrust SourceReader::Trust() const {
  if (options_.sources == SourcePolicy::kBaseOnly) return BaseTrust::kTrusted;
  const absl::Time now = Now();
  BaseEvidence evidence{.durable = knowledge().durable(),
                        .in_base = knowledge().InBase(plan_.kind),
                        .no_peer_has_it = true};
  const std::optional<DeclaredFile> declared = knowledge().Declared(plan_.kind);
  evidence.declared = declared && declared->crc32c;
  for (size_t i = 0; i < round_.size(); ++i) {
    const bool has_not = round_[i].answer == PeerAnswer::kHasNot ||
                         (round_[i].answer == PeerAnswer::kNone &&
                          knowledge().ViewOf(sources_->peers[i]->standing(), now).has_not);
    if (!has_not) evidence.no_peer_has_it = false;
  }
  return TrustInBase(evidence);
}

bool SourceReader::PeersLeft() const {
  if (options_.sources == SourcePolicy::kBaseOnly) return false;
  SelectionView view = View();
  view.base = BaseOutcome::kFailed;
  return HasAlternative(view);
}

bool SourceReader::PeersMayHelp() const {
  if (options_.sources == SourcePolicy::kBaseOnly) return false;
  return std::any_of(round_.begin(), round_.end(),
                     [](const PeerRound& peer) { return peer.answer != PeerAnswer::kHasNot; });
}

bool SourceReader::EvenIfDurable() const {
  if (storage_said_ || options_.sources == SourcePolicy::kPeerOnly) return true;
  return knowledge().durable() && plan_.kind != FileKind::kMetadata;
}

uint64_t SourceReader::RemainingLength() const {
  if (end_) return *end_ - reached_;
  return plan_.length ? *plan_.length - (reached_ - plan_.offset) : UINT64_MAX;
}

absl::Time SourceReader::Limit() const {
  return std::min(options_.deadline, progress_at_ + sources_->budgets().give_up);
}

absl::Status SourceReader::CheckCaller() const {
  if (options_.cancellation.stop_requested()) return absl::CancelledError("the caller left");
  return Now() >= Limit() ? OutOfTime() : absl::OkStatus();
}

absl::Status SourceReader::OutOfTime() const {
  if (!waited_ && Now() >= options_.deadline) {
    return absl::DeadlineExceededError(
        absl::StrCat("out of time at offset ", reached_, ": ", Causes()));
  }
  return absl::UnavailableError(absl::StrCat("no source could give it in time: ", Causes(),
                                             "; if the build is still being uploaded, see that its "
                                             "source node is up and reachable, and try "
                                             "again"));
}

std::string SourceReader::Causes() const {
  std::string text;
  for (size_t i = 0; i < round_.size(); ++i) {
    absl::StrAppend(&text, "peer ", sources_->peers[i]->address().ToString(), ": ",
                    round_[i].cause.ok() ? "no answer yet" : round_[i].cause.message(), "; ");
  }
  absl::StrAppend(&text, "base (", sources_->base->Describe(), "): ");
  if (options_.sources == SourcePolicy::kPeerOnly) {
    return text + "not asked, the caller wants peers only";
  }
  if (at_ == At::kBase) return text + "no end of it yet";
  return absl::StrCat(text, base_cause_.ok() ? "not asked" : base_cause_.message());
}

void SourceReader::RestartIfWhole() {
  if (!plan_.whole) return;
  if (reached_ > plan_.offset) {
    Waste(sources_->counters().wasted_restart, reached_ - plan_.offset);
    restarted_ = true;
  }
  reached_ = plan_.offset;
  TakeDeclared();
  crc_so_far_ = 0;
  from_peer_ = false;
  for (PeerRound& peer : round_) peer.gave_bytes = false;
}

void SourceReader::Waste(Counter& reason, uint64_t bytes) const {
  reason.Add(bytes);
  knowledge().bytes(plan_.kind).wasted.fetch_add(bytes, std::memory_order_relaxed);
}

void SourceReader::LeavePeer() {
  if (hedge_ != nullptr) std::exchange(hedge_, nullptr)->Abandon();
  on_cancel_.reset();
  if (attempt_ != nullptr) attempt_->LeftSilent();
  attempt_.reset();
  hedge_at_ = absl::InfiniteFuture();
}

absl::StatusOr<std::optional<SourceReader::Piece>> SourceReader::Accept(
    const Extent& extent, std::optional<uint32_t> crc32c) {
  const bool from_peer = crc32c.has_value();
  const size_t file = static_cast<size_t>(plan_.kind) - 1;
  BuildKnowledge::ByteCounts& bytes = knowledge().bytes(plan_.kind);
  (from_peer ? sources_->counters().peer_bytes : sources_->counters().base_bytes)[file]->Add(
      extent.length);
  (from_peer ? bytes.peer : bytes.base).fetch_add(extent.length, std::memory_order_relaxed);
  if (from_peer) {
    from_peer_ = true;
    round_[peer_].gave_bytes = true;
  }
  if (plan_.offset == 0) {
    // From the first byte on: another source may tell the checksum in the middle of the read.
    if (extent.zero) crc32c = Crc32cOfZeros(extent.length);
    if (crc32c) {
      crc_so_far_ = CombineCrc32c(crc_so_far_, *crc32c, extent.length);
    } else {
      for (const std::string_view piece : extent.pieces) {
        crc_so_far_ = ExtendCrc32c(crc_so_far_, piece);
      }
    }
    const bool complete = file_crc32c_ && size_ && reached_ + extent.length == *size_;
    if (complete && crc_so_far_ != *file_crc32c_) {
      PEERCHUNK_RETURN_IF_ERROR(WholeFileWrong());
      return MaybePiece();
    }
  }
  if (plan_.into != nullptr) {
    char* const to = plan_.into + (reached_ - plan_.offset);
    const bool there = !extent.zero && extent.pieces.size() == 1 && extent.pieces[0].data() == to;
    if (!there) extent.CopyTo(to);
  }
  reached_ += extent.length;
  if (!end_ && RemainingLength() == 0) end_ = reached_;
  if (reached_ > furthest_) {  // Bytes read again after a restart are no progress.
    furthest_ = reached_;
    progress_at_ = Now();
  }
  return Piece{.extent = extent, .restarted = std::exchange(restarted_, false)};
}

absl::Status SourceReader::WholeFileWrong() {
  const absl::Status wrong = absl::DataLossError("the whole file's CRC32C is not the declared one");
  DoubtAllInvolved(wrong);
  // Bytes of it may be out of our hands: then the read fails, and the next one has other sources.
  if (!plan_.whole) return wrong;
  if (at_ == At::kPeer) {
    return OnPeerEnd(peer_, PeerEvent::kBadBytes, wrong, absl::ZeroDuration());
  }
  return OnBaseEnd(wrong);
}

void SourceReader::DoubtAllInvolved(const absl::Status& wrong) {
  // The checksum itself may be the lie, unless it is the base's.
  std::optional<DeclaredFile> declared;
  if (!size_from_base_ && !knowledge().BaseFoundEqual(plan_.kind)) {
    declared = knowledge().Declared(plan_.kind);
  }
  for (size_t i = 0; i < round_.size(); ++i) {
    PeerStanding* const standing = sources_->peers[i]->standing();
    if (!round_[i].gave_bytes && !(declared && declared->by == standing)) continue;
    if (at_ == At::kPeer && plan_.whole && i == peer_) continue;  // Its end is recorded as such.
    knowledge().Apply(standing, ReactTo(PeerEvent::kBadBytes), absl::ZeroDuration(), Now());
    sources_->counters().quarantines[static_cast<size_t>(PeerEvent::kBadBytes)]->Add();
    LogSwitch(i, PeerEvent::kBadBytes, wrong);
  }
  if (declared) knowledge().Refute(plan_.kind, *declared, Now());
}

}  // namespace peerchunk
