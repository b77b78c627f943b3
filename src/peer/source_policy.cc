#include "peer/source_policy.h"

#include <algorithm>

namespace peerchunk {

PeerReaction ReactTo(PeerEvent event) {
  switch (event) {
    case PeerEvent::kNotAvailable:
      return {.reason = "not_available", .pause = true};
    case PeerEvent::kAbsent:
      return {.reason = "absent", .not_found = true};
    case PeerEvent::kUseStorage:
      return {.reason = "use_storage", .durable = true};
    case PeerEvent::kNotYet:
      return {.reason = "not_yet", .wait_for_hint = true};
    case PeerEvent::kStoppedShort:
      return {.reason = "partial"};
    case PeerEvent::kUnreachable:
      return {.reason = "unreachable", .breaker_failure = true};
    case PeerEvent::kDialTimeout:
      return {.reason = "dial_timeout", .breaker_failure = true};
    case PeerEvent::kFirstByteTimeout:
      return {.reason = "first_byte_timeout", .breaker_failure = true};
    case PeerEvent::kStalled:
      return {.reason = "stall", .breaker_failure = true};
    case PeerEvent::kOutOfBudget:
      return {.reason = "out_of_budget"};
    case PeerEvent::kOverloaded:
      return {.reason = "overloaded", .wait_for_hint = true, .hold_off = true};
    case PeerEvent::kBadBytes:
      return {.reason = "bad_bytes", .quarantine = true, .error_log = true};
    case PeerEvent::kCutShort:
      return {.reason = "cut_short", .quarantine = true, .error_log = true};
    case PeerEvent::kDataLoss:
      return {.reason = "data_loss", .quarantine = true, .error_log = true};
    case PeerEvent::kBadRangeAnswer:
      return {.reason = "bad_range_answer", .quarantine = true, .error_log = true};
    case PeerEvent::kContradiction:
      return {.reason = "contradiction", .quarantine = true, .error_log = true};
    case PeerEvent::kDenied:
      return {.reason = "denied", .deny = true, .error_log = true};
    case PeerEvent::kLostToBase:
      return {.reason = "hedge_won"};
    case PeerEvent::kPassedOver:
      return {.reason = "passed_over"};
  }
  return {.reason = "unreachable", .breaker_failure = true};
}

PeerEvent ClassifyStatus(const absl::Status& status, bool range_known_valid) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return PeerEvent::kOverloaded;
    case absl::StatusCode::kDataLoss:
      return PeerEvent::kDataLoss;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return PeerEvent::kDenied;
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kInvalidArgument:
      return range_known_valid ? PeerEvent::kBadRangeAnswer : PeerEvent::kUnreachable;
    default:
      return PeerEvent::kUnreachable;
  }
}

BaseTrust TrustInBase(const BaseEvidence& evidence) {
  if (evidence.durable || evidence.in_base) return BaseTrust::kTrusted;
  if (evidence.declared) return BaseTrust::kIfEqual;
  if (evidence.no_peer_has_it) return BaseTrust::kTrusted;
  return BaseTrust::kIfComplete;
}

namespace {

bool BaseOpen(const SelectionView& view) {
  return view.sources != SourcePolicy::kPeerOnly && view.base == BaseOutcome::kUntried;
}

// The first peer not asked in this round, among the demoted or the others.
std::optional<size_t> NextPeer(const SelectionView& view, bool demoted,
                               std::optional<absl::Time> now) {
  if (view.sources == SourcePolicy::kBaseOnly) return std::nullopt;
  for (size_t i = 0; i < view.peers.size(); ++i) {
    const PeerView& peer = view.peers[i];
    if (peer.tried || peer.demoted != demoted) continue;
    if (now && peer.not_before > *now) continue;
    return i;
  }
  return std::nullopt;
}

Choice AskPeer(size_t peer) { return {.kind = Choice::Kind::kPeer, .peer = peer}; }

}  // namespace

Choice ChooseNext(const SelectionView& view, absl::Time now) {
  if (view.base_first && BaseOpen(view)) return {.kind = Choice::Kind::kBase};
  if (const auto peer = NextPeer(view, /*demoted=*/false, now)) return AskPeer(*peer);
  if (BaseOpen(view)) return {.kind = Choice::Kind::kBase};
  if (const auto peer = NextPeer(view, /*demoted=*/true, now)) return AskPeer(*peer);

  // The round is over.
  const bool peers_count = view.sources != SourcePolicy::kBaseOnly;
  const bool nobody_has_it =
      !peers_count || std::all_of(view.peers.begin(), view.peers.end(), [](const PeerView& peer) {
        return peer.answer == PeerAnswer::kHasNot;
      });
  if (nobody_has_it) {
    return {.kind = view.base == BaseOutcome::kFailed ? Choice::Kind::kBaseError
                                                      : Choice::Kind::kNotFound};
  }
  const bool somebody_may =
      std::any_of(view.peers.begin(), view.peers.end(), [](const PeerView& peer) {
        return peer.answer == PeerAnswer::kHas || peer.answer == PeerAnswer::kNotYet;
      });
  if (view.base == BaseOutcome::kAbsent && !somebody_may) return {.kind = Choice::Kind::kNotFound};
  Choice wait{.kind = Choice::Kind::kNextRound};
  // A hint holds the round back only when it is every peer's: others may be asked sooner.
  absl::Time earliest = absl::InfiniteFuture();
  for (const PeerView& peer : view.peers) earliest = std::min(earliest, peer.not_before);
  wait.not_before = earliest;
  return wait;
}

bool HasReadyPeer(const SelectionView& view, absl::Time now) {
  return NextPeer(view, /*demoted=*/false, now).has_value();
}

absl::Time LeaveAt(const SelectionView& view, absl::Time round_began, absl::Time now,
                   absl::Time limit, double reserve) {
  if (!HasAlternative(view)) return absl::InfiniteFuture();
  int64_t peers = 1;
  for (const PeerView& peer : view.peers) peers += peer.tried ? 0 : 1;
  if (BaseOpen(view)) limit -= (limit - round_began) * reserve;
  return now + std::max(limit - now, absl::ZeroDuration()) / peers;
}

bool HasAlternative(const SelectionView& view) {
  return BaseOpen(view) || NextPeer(view, false, std::nullopt).has_value() ||
         NextPeer(view, true, std::nullopt).has_value();
}

}  // namespace peerchunk
