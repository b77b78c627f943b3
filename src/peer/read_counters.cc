#include "peer/read_counters.h"

#include <string>

namespace peerchunk {
namespace {

std::array<Counter*, kAllFileKinds.size()> BytesFrom(Metrics& metrics, const char* source) {
  std::array<Counter*, kAllFileKinds.size()> counters{};
  for (const FileKind kind : kAllFileKinds) {
    counters[static_cast<size_t>(kind) - 1] =
        &metrics.counter("peerchunk_source_bytes_total",
                         {{"source", source}, {"file", std::string(FileName(kind))}});
  }
  return counters;
}

Counter& ByReason(Metrics& metrics, const char* name, std::string_view reason) {
  return metrics.counter(name, {{"reason", std::string(reason)}});
}

Counter& ByOutcome(Metrics& metrics, const char* name, const char* outcome) {
  return metrics.counter(name, {{"outcome", outcome}});
}

constexpr char kWasted[] = "peerchunk_wasted_bytes_total";
constexpr char kFallbacks[] = "peerchunk_fallbacks_total";
constexpr char kHedges[] = "peerchunk_hedges_total";
constexpr char kQuarantines[] = "peerchunk_quarantines_total";
constexpr char kBreaker[] = "peerchunk_breaker_transitions_total";

}  // namespace

ReadCounters::ReadCounters(Metrics& metrics)
    : peer_bytes(BytesFrom(metrics, "peer")),
      base_bytes(BytesFrom(metrics, "base")),
      wasted_hedge_lost(ByReason(metrics, kWasted, "hedge_lost")),
      wasted_lost_to_base(ByReason(metrics, kWasted, "lost_to_base")),
      wasted_bad_bytes(ByReason(metrics, kWasted, "bad_bytes")),
      wasted_restart(ByReason(metrics, kWasted, "restart")),
      fallbacks{},
      base_missing(ByReason(metrics, kFallbacks, "base_missing")),
      base_failed(ByReason(metrics, kFallbacks, "base_failed")),
      base_stalled(ByReason(metrics, kFallbacks, "base_stalled")),
      hedges_sent(ByOutcome(metrics, kHedges, "sent")),
      hedges_won(ByOutcome(metrics, kHedges, "won")),
      hedges_lost(ByOutcome(metrics, kHedges, "lost")),
      hedges_failed(ByOutcome(metrics, kHedges, "failed")),
      hedges_dropped(ByOutcome(metrics, kHedges, "dropped")),
      hedges_refused(ByOutcome(metrics, kHedges, "refused")),
      stalls(metrics.counter("peerchunk_stalls_total")),
      quarantines{},
      quarantine_base_differs(ByReason(metrics, kQuarantines, "base_differs")),
      breaker_open(ByOutcome(metrics, kBreaker, "open")),
      breaker_half_open(ByOutcome(metrics, kBreaker, "half_open")),
      breaker_closed(ByOutcome(metrics, kBreaker, "closed")) {
  for (size_t i = 0; i < kPeerEventCount; ++i) {
    const PeerReaction reaction = ReactTo(static_cast<PeerEvent>(i));
    fallbacks[i] = &ByReason(metrics, kFallbacks, reaction.reason);
    if (reaction.quarantine) quarantines[i] = &ByReason(metrics, kQuarantines, reaction.reason);
  }
}

}  // namespace peerchunk
