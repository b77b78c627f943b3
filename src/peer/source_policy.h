#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/time/time.h>

#include "peerchunk/base/build_state.h"
#include "peerchunk/base/file_head.h"
#include "peerchunk/storage/storage.h"

// Which source, when, as pure functions (a table of all cases: source_policy_test.cc). Values in,
// values out; no clock, no I/O, no state. What happened at a peer goes through ReactTo, which says
// what it means for the peer and for every later reader; ChooseNext says where a read goes next.

namespace peerchunk {

// How a peer's part in a read ended. One value per row of the table.
enum class PeerEvent : uint8_t {
  kNotAvailable,      // Head: the node does not have this build.
  kAbsent,            // Head: the build has no such file.
  kUseStorage,        // Head: durable.
  kNotYet,            // Head: it will have it.
  kStoppedShort,      // Ended properly at a block that is not present there.
  kUnreachable,       // Dial failed, connection lost, or any status that has no value here.
  kDialTimeout,       // No connection within the dial budget.
  kFirstByteTimeout,  // Connected, and no byte within the first-byte budget.
  kStalled,           // Bytes came below the floor rate for the stall budget.
  kOutOfBudget,       // Alive, but the rest of the deadline is kept for the other sources.
  kOverloaded,        // RESOURCE_EXHAUSTED.
  kBadBytes,          // Checksum, size or order wrong, or a message that no correct peer sends.
  kCutShort,          // The stream ended with OK and without `last`.
  kDataLoss,          // DATA_LOSS.
  kBadRangeAnswer,    // OUT_OF_RANGE or INVALID_ARGUMENT for a range that is valid here.
  kContradiction,     // Size, checksum or existence differ from what was declared before.
  kDenied,            // UNAUTHENTICATED, PERMISSION_DENIED.
  kLostToBase,        // The hedge's bytes came first.
  kPassedOver,        // No byte within the hedge delay, no base to hedge with, but another peer.
};
inline constexpr size_t kPeerEventCount = static_cast<size_t>(PeerEvent::kPassedOver) + 1;

// What an event means. `reason` is the label of its counter and of its log line.
struct PeerReaction {
  std::string_view reason;
  bool breaker_failure = false;  // Counts against the peer, for all builds.
  bool quarantine = false;       // Not trusted with this build for a while.
  bool deny = false;             // Asked last for this build from now on.
  bool pause = false;            // Asked last for this build for a while.
  bool durable = false;          // The build is durable, for every reader from now on.
  bool wait_for_hint = false;    // This read asks again only when its hint is over.
  bool hold_off = false;         // And so does every other read of the build.
  bool not_found = false;        // Ends the read.
  bool error_log = false;        // An operator has to look.
};
PeerReaction ReactTo(PeerEvent event);

// What the end of a peer's call means; `status` is not OK. `range_known_valid`: the size is known
// and the range lies within it.
PeerEvent ClassifyStatus(const absl::Status& status, bool range_known_valid);

// The latest answer of one peer, as far as the end of a read depends on it.
enum class PeerAnswer : uint8_t { kNone, kHas, kHasNot, kNotYet, kUnreachable };

// Why the base may, or may not, be a source for a file before any byte of it is read.
enum class BaseTrust : uint8_t {
  kTrusted,     // Durable, or this file is said to be in the base, or no peer has the build.
  kIfEqual,     // Only if its Stat equals what a peer declared.
  kIfComplete,  // No peer has declared it: only if metadata.json, written last of all, is there.
};

struct BaseEvidence {
  bool durable = false;
  bool in_base = false;         // A peer said so of this very file.
  bool declared = false;        // A peer declared the file's size and checksum.
  bool no_peer_has_it = false;  // Every peer's latest answer is "I don't have it"; or no peers.
};
BaseTrust TrustInBase(const BaseEvidence& evidence);

// A peer as the choice sees it.
struct PeerView {
  bool demoted = false;  // Quarantined, denied, paused, or its breaker is open: asked last.
  bool tried = false;    // In this round.
  PeerAnswer answer = PeerAnswer::kNone;
  absl::Time not_before = absl::InfinitePast();  // Its hint.
};

// What the base did in this round.
enum class BaseOutcome : uint8_t {
  kUntried,
  kMissing,  // NotFound, or not a source now (BaseTrust), or the caller does not want it.
  kAbsent,   // NotFound, although the upload is complete, of a file that no peer has declared.
  kFailed,   // Any other error.
};

// A read at one moment. A round asks each source at most once; rounds are a backoff step apart.
struct SelectionView {
  SourcePolicy sources = SourcePolicy::kPeerAndBase;
  // Read from the base first: the build is durable and the file immutable.
  bool base_first = false;
  BaseOutcome base = BaseOutcome::kUntried;
  std::vector<PeerView> peers;
};

struct Choice {
  enum class Kind : uint8_t {
    kPeer,  // `peer`; with even_if_durable when the base comes, or came, first.
    kBase,
    kNextRound,  // "Not yet": all sources again after the backoff, at the earliest when
                 // `not_before`.
    kNotFound,   // Nobody has it.
    kBaseError,  // No peer can help: what the base said.
  };
  Kind kind = Kind::kNotFound;
  size_t peer = 0;
  absl::Time not_before = absl::InfinitePast();
};
Choice ChooseNext(const SelectionView& view, absl::Time now);

// True when a peer that is not demoted could be asked now, instead of one that is silent.
bool HasReadyPeer(const SelectionView& view, absl::Time now);

// Until when a read waits for a peer while others could still be asked: what the round has for
// peers is shared by those left in it, and `reserve`, a share of the whole round, is the base's.
// `tried` is set of the peer itself. Infinite when there is nobody else.
absl::Time LeaveAt(const SelectionView& view, absl::Time round_began, absl::Time now,
                   absl::Time limit, double reserve);

// True when another source than the one being read could still be asked in this round: time has to
// be kept for it.
bool HasAlternative(const SelectionView& view);

}  // namespace peerchunk
