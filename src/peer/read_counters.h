#pragma once

#include <array>

#include "peer/source_policy.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/metrics.h"

namespace peerchunk {

// Every series that reads touch, looked up once. Immutable after construction; the counters are
// atomics. Borrows the registry.
struct ReadCounters {
  explicit ReadCounters(Metrics& metrics);

  // Index: FileKind - 1.
  std::array<Counter*, kAllFileKinds.size()> peer_bytes;
  std::array<Counter*, kAllFileKinds.size()> base_bytes;

  // Why received bytes were dropped.
  Counter& wasted_hedge_lost;    // The base's, when the peer was first after all.
  Counter& wasted_lost_to_base;  // The peer's, when the base was first.
  Counter& wasted_bad_bytes;
  Counter& wasted_restart;  // A header or metadata begun again at another source.

  // A peer was left, by reason; or the base, for a peer.
  std::array<Counter*, kPeerEventCount> fallbacks;
  Counter& base_missing;
  Counter& base_failed;
  Counter& base_stalled;

  Counter& hedges_sent;
  Counter& hedges_won;
  Counter& hedges_lost;
  Counter& hedges_failed;   // The base had nothing, or an error.
  Counter& hedges_dropped;  // Nobody waited for it any more. won + lost + failed + dropped == sent.
  Counter& hedges_refused;  // Over the share.

  Counter& stalls;
  std::array<Counter*, kPeerEventCount> quarantines;  // Null where the event does not quarantine.
  Counter& quarantine_base_differs;
  Counter& breaker_open;
  Counter& breaker_half_open;
  Counter& breaker_closed;
};

}  // namespace peerchunk
