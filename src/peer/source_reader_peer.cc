#include <algorithm>
#include <utility>

#include "base/logging.h"
#include "peer/peer_version.h"
#include "peer/source_reader.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr absl::Duration kLastMessageWait = absl::Milliseconds(10);

PeerAnswer AnswerOf(PeerEvent event) {
  switch (event) {
    case PeerEvent::kNotAvailable:
    case PeerEvent::kAbsent:
      return PeerAnswer::kHasNot;
    case PeerEvent::kNotYet:
      return PeerAnswer::kNotYet;
    case PeerEvent::kUseStorage:
    case PeerEvent::kStoppedShort:
    case PeerEvent::kLostToBase:
      return PeerAnswer::kHas;
    default:
      return PeerAnswer::kUnreachable;
  }
}

spdlog::logger& Log() {
  static spdlog::logger& logger = Logger("peer");
  return logger;
}

}  // namespace

absl::Status SourceReader::StartPeer(size_t peer) {
  if (!size_ && reached_ > 0 && !plan_.head_only) PEERCHUNK_RETURN_IF_ERROR(LearnSize());
  if (size_ && !end_ && !plan_.head_only) return absl::OkStatus();  // The range is judged first.
  round_[peer].tried = true;
  peer_ = peer;
  head_taken_ = false;
  LeavePeer();
  PeerLink& link = *sources_->peers[peer];
  auto client = link.Client(*sources_->directory->options.connector, plan_.lane);
  if (!client.ok()) {
    return OnPeerEnd(peer, ClassifyStatus(client.status(), true), client.status(),
                     absl::ZeroDuration());
  }
  if (!std::exchange(counted_as_read_, true)) sources_->directory->tokens.OnRead();

  PeerAttempt::Plan plan;
  plan.request.file = sources_->FileId(plan_.kind);
  plan.request.even_if_durable = EvenIfDurable();
  plan.request.relays_left = std::min<uint32_t>(options_.relays_left, 1);
  plan.request.prefetch = plan_.lane == PeerLane::kBulk;
  if (plan_.head_only) {
    plan.request.length = 0;
  } else {
    plan.request.offset = reached_;
    const uint64_t rest = RemainingLength();
    if (rest != UINT64_MAX) plan.request.length = rest;
    if (plan_.into != nullptr) plan.into = plan_.into + (reached_ - plan_.offset);
  }
  plan.wants_bytes = !plan_.head_only;
  plan.least_size = options_.least_size;
  plan.range_known_valid = plan_.head_only || reached_ == 0 || size_.has_value();
  const absl::Time now = Now();
  plan.deadline = options_.deadline;
  plan.leave_at = LeaveAt(View(), round_began_, now, Limit(), sources_->budgets().base_reserve);
  peer_stop_ = std::stop_source();
  if (options_.cancellation.stop_possible()) {
    on_cancel_.emplace(options_.cancellation, std::function<void()>([stop = peer_stop_]() mutable {
                         stop.request_stop();
                       }));
  }
  attempt_ = std::make_unique<PeerAttempt>(*sources_, link, *std::move(client), plan,
                                           peer_stop_.get_token());
  hedge_delay_ = link.state().first_byte.HedgeDelay();
  if (MayHedge() || MayPassOver()) hedge_at_ = now + hedge_delay_;
  at_ = At::kPeer;
  return absl::OkStatus();
}

absl::Status SourceReader::LearnSize() {
  // A peer refuses a range past the end without saying where the end is. The nested read asks all
  // sources, as this one would.
  SourceReader head(sources_, {.kind = plan_.kind, .head_only = true, .lane = plan_.lane},
                    options_);
  PEERCHUNK_ASSIGN_OR_RETURN(const ObjectStat stat, head.Stat());
  size_ = stat.size;
  if (stat.crc32c) file_crc32c_ = stat.crc32c;
  size_from_base_ = head.size_from_base_;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<SourceReader::Piece>> SourceReader::ReadPeer() {
  const PeerAttempt::Step step = attempt_->Advance(std::min(hedge_at_, Limit()));
  switch (step.kind) {
    case PeerAttempt::Step::Kind::kWaiting:
      if (Now() >= hedge_at_) PEERCHUNK_RETURN_IF_ERROR(OnSilence());
      return MaybePiece();
    case PeerAttempt::Step::Kind::kHead:
      PEERCHUNK_RETURN_IF_ERROR(OnHead());
      return MaybePiece();
    case PeerAttempt::Step::Kind::kExtent:
      return TakeFromPeer(step);
    case PeerAttempt::Step::Kind::kFinished:
      PEERCHUNK_RETURN_IF_ERROR(OnHead());
      if (at_ == At::kPeer && end_ && reached_ < *end_) {
        // All that was asked for came, but the file is longer than this read knew then.
        LeavePeer();
        round_[peer_].tried = false;
        at_ = At::kNowhere;
      }
      return MaybePiece();
    case PeerAttempt::Step::Kind::kFailed:
      break;
  }
  Waste(sources_->counters().wasted_bad_bytes, step.dropped_bytes);
  const bool broken_off =
      step.event == PeerEvent::kLostToBase || step.event == PeerEvent::kOutOfBudget;
  if (broken_off) PEERCHUNK_RETURN_IF_ERROR(CheckCaller());
  PEERCHUNK_RETURN_IF_ERROR(OnPeerEnd(peer_, step.event, step.cause, step.hint));
  return MaybePiece();
}

absl::Status SourceReader::OnHead() {
  if (std::exchange(head_taken_, true)) return absl::OkStatus();
  const FileHead& head = *attempt_->head();
  const bool other_size = size_ && *size_ != head.total_size;
  const bool other_crc = file_crc32c_ && head.file_crc32c && *file_crc32c_ != *head.file_crc32c;
  if (size_from_base_ && (other_size || other_crc)) {
    return OnPeerEnd(
        peer_, PeerEvent::kContradiction,
        absl::DataLossError(absl::StrCat("the peer declares another file, of ", head.total_size,
                                         " bytes, than the base has")),
        absl::ZeroDuration());
  }
  // Else what this read knew was said by a peer that was convicted since.
  if (other_size) end_.reset();
  size_ = head.total_size;
  if (head.file_crc32c) file_crc32c_ = head.file_crc32c;
  if (!plan_.head_only) return absl::OkStatus();
  if (hedge_ != nullptr && !hedge_->YieldToPeer()) {
    return OnPeerEnd(peer_, PeerEvent::kLostToBase, absl::CancelledError("the base was first"),
                     absl::ZeroDuration());
  }
  stat_ = ObjectStat{.size = head.total_size,
                     .crc32c = head.file_crc32c,
                     .version = PeerVersion(head.version, head.total_size, head.file_crc32c),
                     .metadata = {}};
  return absl::OkStatus();
}

absl::StatusOr<std::optional<SourceReader::Piece>> SourceReader::TakeFromPeer(
    const PeerAttempt::Step& step) {
  const Extent& extent = step.extent;
  PEERCHUNK_RETURN_IF_ERROR(OnHead());
  if (at_ != At::kPeer) return MaybePiece();  // The head was a contradiction.
  if (hedge_ != nullptr && !hedge_->YieldToPeer()) {
    Waste(sources_->counters().wasted_lost_to_base, extent.zero ? 0 : extent.length);
    PEERCHUNK_RETURN_IF_ERROR(OnPeerEnd(peer_, PeerEvent::kLostToBase,
                                        absl::CancelledError("the base was first"),
                                        absl::ZeroDuration()));
    return MaybePiece();
  }
  hedge_.reset();
  hedge_at_ = absl::InfiniteFuture();
  return Accept(extent, step.crc32c);
}

void SourceReader::HearLastMessage() {
  if (at_ != At::kPeer || attempt_ == nullptr) return;
  // It comes with the last bytes or right behind them; a peer that keeps it back costs no more.
  const absl::Time until = std::min(Now() + kLastMessageWait, Limit());
  const PeerAttempt::Step step = attempt_->Advance(until);
  if (step.kind != PeerAttempt::Step::Kind::kFailed || !ReactTo(step.event).quarantine) return;
  RecordPeerEnd(peer_, step.event, step.cause, step.hint);
}

void SourceReader::RecordPeerEnd(size_t peer, PeerEvent event, const absl::Status& cause,
                                 absl::Duration hint) {
  const PeerReaction reaction = ReactTo(event);
  const ReadCounters& counters = sources_->counters();
  const auto index = static_cast<size_t>(event);
  const absl::Time now = Now();
  if (reaction.wait_for_hint && hint == absl::ZeroDuration()) hint = backoff_;

  knowledge().Apply(sources_->peers[peer]->standing(), reaction, hint, now);
  counters.fallbacks[index]->Add();
  if (reaction.quarantine) counters.quarantines[index]->Add();
  if (event == PeerEvent::kStalled) counters.stalls.Add();
  if (reaction.quarantine && !size_from_base_) TakeDeclared();  // Its word counts no more.
  LogSwitch(peer, event, cause);

  PeerRound& round = round_[peer];
  round.answer = AnswerOf(event);
  round.cause = cause;
  if (reaction.wait_for_hint) round.not_before = now + std::min(hint, absl::Seconds(5));
}

absl::Status SourceReader::OnPeerEnd(size_t peer, PeerEvent event, const absl::Status& cause,
                                     absl::Duration hint) {
  RecordPeerEnd(peer, event, cause, hint);
  if (event == PeerEvent::kUseStorage) {
    storage_said_ = true;
    round_[peer].tried = false;  // It may be asked again, for the bytes all the same.
  }
  on_cancel_.reset();
  const bool left_silent = event == PeerEvent::kLostToBase || event == PeerEvent::kPassedOver;
  if (left_silent && attempt_ != nullptr) attempt_->LeftSilent();
  attempt_.reset();
  hedge_at_ = absl::InfiniteFuture();
  at_ = At::kNowhere;
  if (ReactTo(event).not_found) return absl::NotFoundError("the build has no such file");
  RestartIfWhole();
  if (hedge_ != nullptr && !hedge_->StealIfQueued()) at_ = At::kHedge;
  return absl::OkStatus();
}

void SourceReader::LogSwitch(size_t peer, PeerEvent event, const absl::Status& cause) {
  PeerStanding* const standing = sources_->peers[peer]->standing();
  const auto unlogged = knowledge().MayLog(standing, event, Now());
  if (!unlogged) return;
  const PeerReaction reaction = ReactTo(event);
  Log().log(
      reaction.error_log ? spdlog::level::err : spdlog::level::info,
      "event=leave_peer reason={} build={} file={} peer={} offset={} unlogged={} cause=\"{}\"",
      reaction.reason, knowledge().build().ToString(), FileName(plan_.kind),
      sources_->peers[peer]->address().ToString(), reached_, *unlogged,
      std::string_view(cause.message().data(), cause.message().size()));
}

absl::Status SourceReader::OnSilence() {
  hedge_at_ = absl::InfiniteFuture();
  if (!attempt_->silent()) return absl::OkStatus();
  if (hedge_ == nullptr && MayHedge()) {
    StartHedge();
  } else if (hedge_ == nullptr || hedge_->failed()) {
    return PassOver();
  }
  // The base may turn out to be no source.
  if (hedge_ != nullptr && MayPassOver()) hedge_at_ = Now() + hedge_delay_;
  return absl::OkStatus();
}

bool SourceReader::MayPassOver() const {
  if (options_.sources == SourcePolicy::kBaseOnly || round_[peer_].passed_over) return false;
  return options_.priority == Priority::kDemand && HasReadyPeer(View(), Now());
}

absl::Status SourceReader::PassOver() {
  if (!MayPassOver() || !TakeToken()) return absl::OkStatus();
  round_[peer_].passed_over = true;
  return OnPeerEnd(peer_, PeerEvent::kPassedOver,
                   absl::UnavailableError(absl::StrCat(
                       "silent for ", absl::FormatDuration(Now() - attempt_->started()))),
                   absl::ZeroDuration());
}

bool SourceReader::TakeToken() {
  if (sources_->directory->tokens.Take()) return true;
  sources_->counters().hedges_refused.Add();
  return false;
}

bool SourceReader::MayHedge() const {
  if (sources_->directory->options.executor == nullptr) return false;
  // Nobody waits for it: the tokens are for reads that somebody waits for.
  if (options_.priority != Priority::kDemand) return false;
  if (options_.sources != SourcePolicy::kPeerAndBase || base_ != BaseOutcome::kUntried)
    return false;
  // Being quicker is no reason to give an older metadata.json.
  if (plan_.kind == FileKind::kMetadata && knowledge().Declared(plan_.kind) &&
      !knowledge().BaseFoundEqual(plan_.kind)) {
    return false;
  }
  return knowledge().HedgeWorthwhile(plan_.kind, Now());
}

void SourceReader::StartHedge() {
  const BaseTrust trust = Trust();  // The head may have come meanwhile, and with it other evidence.
  if (!TakeToken()) return;
  durable_before_base_ = knowledge().durable();
  Hedge::Plan plan{.kind = plan_.kind, .trust = trust, .offset = reached_};
  if (!plan_.head_only) plan.most_bytes = std::min(RemainingLength(), Hedge::kWindowBytes);
  hedge_bytes_ = plan.most_bytes;
  // What the window does not cover must come from the same version of the object.
  plan.want_stat = plan_.head_only || plan_.whole || RemainingLength() > Hedge::kWindowBytes;
  plan.options = BaseOptions(Hedge::kWindowBytes);
  hedge_ = Hedge::Start(sources_, std::move(plan),
                        [stop = peer_stop_]() mutable { stop.request_stop(); });
}

absl::StatusOr<std::optional<SourceReader::Piece>> SourceReader::ReadHedge() {
  const Hedge::Result* const result = hedge_->Wait(Limit(), options_.cancellation);
  if (result == nullptr) {
    PEERCHUNK_RETURN_IF_ERROR(CheckCaller());
    at_ = At::kNowhere;
    return MaybePiece();
  }
  BeginBaseWindow(hedge_bytes_);
  base_complete_ = result->admission.complete;
  if (result->admission.outcome != BaseOutcome::kUntried) {
    PEERCHUNK_RETURN_IF_ERROR(OnBaseEnd(result->admission.cause));
    return MaybePiece();
  }
  if (result->admission.stat) PEERCHUNK_RETURN_IF_ERROR(TakeStat(*result->admission.stat));
  at_ = At::kBase;
  if (plan_.head_only) return MaybePiece();
  if (size_ && !end_) PEERCHUNK_RETURN_IF_ERROR(ClipRange());
  const uint64_t wanted = end_ ? std::min(hedge_bytes_, *end_ - reached_) : hedge_bytes_;
  if (result->bytes.size() < wanted) {
    const uint64_t ended_at = reached_ + result->bytes.size();
    if (end_) {
      Waste(sources_->counters().wasted_bad_bytes, result->bytes.size());
      PEERCHUNK_RETURN_IF_ERROR(OnBaseEnd(EndsBeforeItsSize(ended_at)));
      return MaybePiece();
    }
    end_ = ended_at;
  }
  if (result->bytes.empty()) return MaybePiece();
  hedge_piece_ = {std::string_view(result->bytes).substr(0, wanted)};
  return Accept({.offset = reached_, .length = hedge_piece_[0].size(), .pieces = hedge_piece_},
                std::nullopt);
}

}  // namespace peerchunk
