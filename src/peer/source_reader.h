#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <vector>

#include "peer/base_source.h"
#include "peer/hedge.h"
#include "peer/peer_attempt.h"
#include "peer/source_policy.h"
#include "peer/source_set.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// One read of one file, over all its sources: the mechanism under PeerBlob and PeerSeekable. It
// knows cursors, streams and timers; which source is next, and what an event means, it asks
// source_policy.h. Who calls whom:
//
//   1. PeerSeekable or PeerBlob makes a SourceReader for a range and calls Next() until nothing is
//   left.
//      The caller's thread does all the work, so a read needs no thread of its own.
//   2. Next() asks ChooseNext(): a peer, the base, or nothing now. Then it waits (backoff) and
//   begins
//      another round, until the deadline.
//   3. At a peer: PeerAttempt starts the call, drives PeerStream::Next() under its budgets, passes
//   each
//      message through StreamCheck, and tells BuildKnowledge (heads, states) and Breaker what it
//      saw.
//   4. No byte within the hedge delay (OnSilence), and the base may be a source (TrustInBase): a
//   Hedge
//      starts on the executor. If it is first, it stops the call through the stop token; Next()
//      wakes, takes its bytes, and goes on at the base. If the peer is first, Hedge::YieldToPeer()
//      cancels it. Where the base is no source, the next peer is asked instead.
//   5. An attempt that fails goes through ReactTo(): quarantine, pause, breaker, counters, log
//   line; the
//      read goes back to 2 at the byte it had reached. A running hedge is waited for, not repeated.
//   6. At the base: AdmitBase() looks at what it has where that matters, then ranges are read in
//      windows with a limit of their own while a peer might still help.
//   7. Each extent handed out was checked, continues the one before, and moves reached(). With a
//      checksum of the whole file at hand, the last extent is handed out only if it holds.
//
// Deterministic: time comes from the clock, chance from the directory's seed. One thread at a time;
// the destructor cancels what is under way.
class SourceReader {
 public:
  struct Plan {
    FileKind kind = FileKind::kMemfile;
    uint64_t offset = 0;
    std::optional<uint64_t> length;  // Absent: to the end.
    // Only what the file is: Stat() then, no Next().
    bool head_only = false;
    // The bytes of one source only: begins again, at offset 0, when the source changes.
    bool whole = false;
    // Where the byte at `offset` goes: every extent is copied there, or read there in the first
    // place; from reached() on, what is there was not checked.
    char* into = nullptr;
    PeerLane lane = PeerLane::kDemand;
  };

  struct Piece {
    Extent extent;
    bool restarted = false;  // Drop everything from earlier pieces. Only with Plan::whole.
  };

  SourceReader(std::shared_ptr<const SourceSet> sources, const Plan& plan, ReadOptions options);
  ~SourceReader();

  // The next piece; nothing at the end of the range. It is valid until the next call.
  absl::StatusOr<std::optional<Piece>> Next();
  // With Plan::head_only.
  absl::StatusOr<ObjectStat> Stat();

  // Of the next byte.
  uint64_t reached() const { return reached_; }

 private:
  enum class At : uint8_t { kNowhere, kPeer, kHedge, kBase };
  // A peer within the round under way.
  struct PeerRound {
    bool tried = false;
    PeerAnswer answer = PeerAnswer::kNone;
    absl::Time not_before = absl::InfinitePast();
    absl::Status cause;
    bool passed_over = false;  // In any round: it is waited for from then on.
    bool gave_bytes = false;   // That were handed out, in any round.
  };
  using MaybePiece = std::optional<Piece>;

  // The caller asks again: the time it was away counts for nothing.
  void PassOverAbsence();
  absl::StatusOr<MaybePiece> Advance();
  // Cuts the range to the size, which is known.
  absl::Status ClipRange();
  absl::Status Choose();
  absl::Status WaitForNextRound(absl::Time not_before);

  // At a peer (source_reader_peer.cc).
  absl::Status StartPeer(size_t peer);
  absl::StatusOr<MaybePiece> ReadPeer();
  absl::Status LearnSize();
  absl::Status OnHead();
  absl::StatusOr<MaybePiece> TakeFromPeer(const PeerAttempt::Step& step);
  absl::Status OnPeerEnd(size_t peer, PeerEvent event, const absl::Status& cause,
                         absl::Duration hint);
  void RecordPeerEnd(size_t peer, PeerEvent event, const absl::Status& cause, absl::Duration hint);
  // All bytes are there: what is left of the stream is the state, and what may be wrong with it.
  void HearLastMessage();
  void LogSwitch(size_t peer, PeerEvent event, const absl::Status& cause);
  // The hedge delay is over, and maybe no byte has come.
  absl::Status OnSilence();
  bool MayHedge() const;
  bool MayPassOver() const;
  absl::Status PassOver();
  void StartHedge();
  bool TakeToken();
  absl::StatusOr<MaybePiece> ReadHedge();

  // At the base (source_reader_base.cc).
  absl::Status StartBase();
  absl::Status TakeStat(const ObjectStat& stat);
  absl::StatusOr<MaybePiece> ReadBase();
  absl::StatusOr<MaybePiece> ReadBaseInto();
  void BeginBaseWindow(uint64_t length);
  absl::Status OpenBaseWindow();
  absl::Status OnBaseEnd(const absl::Status& cause);
  void RecordBaseEnd(const absl::Status& cause);
  static absl::Status EndsBeforeItsSize(uint64_t offset);
  ReadOptions BaseOptions(uint64_t bytes) const;
  bool BuildLacksFile() const;

  // Hands out bytes that were checked, or finds that the whole is wrong. `crc32c`: a peer's, whose
  // check it came from; absent: of the base.
  absl::StatusOr<MaybePiece> Accept(const Extent& extent, std::optional<uint32_t> crc32c);
  absl::Status WholeFileWrong();
  // The bytes of several, none of which alone is known to be wrong, make a wrong whole.
  void DoubtAllInvolved(const absl::Status& wrong);
  void RestartIfWhole();
  // What is known of the file without asking a source.
  void TakeDeclared();
  // A declaration of fewer bytes than the caller knows of is dropped.
  void RefuteTooSmall(const DeclaredFile& declared);
  void LeavePeer();
  void Waste(Counter& reason, uint64_t bytes) const;

  SelectionView View() const;
  BaseTrust Trust() const;
  // While the base is read: a peer could still be asked in this round.
  bool PeersLeft() const;
  // Some peer, in this round or a later one, may come to have it.
  bool PeersMayHelp() const;
  bool EvenIfDurable() const;
  uint64_t RemainingLength() const;  // UINT64_MAX: not known.
  absl::Time Limit() const;
  absl::Status CheckCaller() const;
  absl::Status OutOfTime() const;
  std::string Causes() const;
  BuildKnowledge& knowledge() const { return *sources_->knowledge; }
  absl::Time Now() const { return sources_->clock().Now(); }

  const std::shared_ptr<const SourceSet> sources_;
  const Plan plan_;
  const ReadOptions options_;
  std::minstd_rand random_;

  At at_ = At::kNowhere;
  uint64_t reached_;
  uint64_t furthest_ = 0;
  std::optional<uint64_t> size_;
  std::optional<uint64_t> end_;  // Of the range, cut to the size.
  std::optional<uint32_t> file_crc32c_;
  bool size_from_base_ = false;  // size_ and file_crc32c_ are the base's, which no peer outweighs.
  std::optional<ObjectStat> stat_;
  absl::Status failed_;
  bool done_ = false;
  absl::Time progress_at_;
  absl::Time returned_at_;  // To the caller, whose own time is not this read's.
  bool from_peer_ = false;  // Some byte handed out came from a peer.
  uint32_t crc_so_far_ = 0;
  bool restarted_ = false;

  // The rounds.
  std::vector<PeerRound> round_;
  absl::Time round_began_;
  BaseOutcome base_ = BaseOutcome::kUntried;
  absl::Status base_cause_;
  bool storage_said_ = false;  // A peer answered USE_STORAGE for this very file.
  bool waited_ = false;        // More than one round.
  bool counted_as_read_ = false;
  absl::Duration backoff_;

  // At a peer.
  size_t peer_ = 0;
  std::stop_source peer_stop_;
  std::optional<std::stop_callback<std::function<void()>>> on_cancel_;
  std::unique_ptr<PeerAttempt> attempt_;
  bool head_taken_ = false;
  absl::Duration hedge_delay_;
  absl::Time hedge_at_ = absl::InfiniteFuture();  // When OnSilence is due.
  std::shared_ptr<Hedge> hedge_;
  uint64_t hedge_bytes_ = 0;  // That it asked for.
  std::array<std::string_view, 1> hedge_piece_;

  // At the base.
  std::unique_ptr<Seekable> base_object_;
  std::unique_ptr<RangeReader> base_reader_;
  uint64_t window_begin_ = 0;
  absl::Time window_began_;
  uint64_t window_length_ = 0;
  std::optional<std::string> base_version_;  // Of the object this read has looked at.
  uint32_t replaced_ = 0;
  uint32_t base_failures_ = 0;
  std::array<std::string_view, 1> base_piece_;
  // Before this file was asked for there: it had metadata.json; a peer had called the build
  // durable.
  bool base_complete_ = false;
  bool durable_before_base_ = false;
};

}  // namespace peerchunk
