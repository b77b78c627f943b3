#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "peer/source_policy.h"
#include "peerchunk/base/build_id.h"
#include "peerchunk/base/file_head.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/peer/peer_directory.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// What one peer is to one build. Owned by the BuildKnowledge, whose lock guards it: only its
// methods look inside.
struct PeerStanding {
  std::string address;
  BuildStatus status;  // The newest.
  bool denied = false;
  absl::Time quarantined_until = absl::InfinitePast();
  absl::Time paused_until = absl::InfinitePast();
  absl::Time overloaded_until = absl::InfinitePast();
  std::array<absl::Time, kPeerEventCount> next_log;
  std::array<uint64_t, kPeerEventCount> unlogged{};

  PeerStanding() { next_log.fill(absl::InfinitePast()); }
};

// What a peer declared of a file. For an immutable file it never changes.
struct DeclaredFile {
  uint64_t size = 0;
  std::optional<uint32_t> crc32c;
  uint64_t version = 0;
  const PeerStanding* by = nullptr;

  friend bool operator==(const DeclaredFile&, const DeclaredFile&) = default;
};

// All that this process knows of one build at its peers, shared by every reader: level-triggered,
// so what one reader learns holds for the next request of all. Thread-safe, by one short lock per
// build; owned by the PeerDirectory and by the readers.
class BuildKnowledge {
 public:
  BuildKnowledge(const BuildId& build, const PeerBudgets& budgets)
      : build_(build), budgets_(budgets) {}

  const BuildId& build() const { return build_; }

  // The standing of the peer at `address`, made when it is new. Lives as long as this.
  PeerStanding* StandingOf(const std::string& address);

  bool durable() const { return durable_.load(std::memory_order_acquire); }
  void MarkDurable() { durable_.store(true, std::memory_order_release); }
  // metadata.json was seen in the base: the upload is complete.
  bool complete_in_base() const { return complete_.load(std::memory_order_acquire); }
  void MarkCompleteInBase() { complete_.store(true, std::memory_order_release); }

  // Takes in a status; older ones of the same incarnation are ignored, DURABLE is final.
  void ObserveStatus(PeerStanding* peer, const BuildStatus& status);
  // Takes in a head. False when it contradicts what was declared before, whoever did (ABSENT, of a
  // file that was declared, does), or declares a file of less than `least_size` bytes.
  bool ObserveHead(PeerStanding* peer, FileKind kind, const FileHead& head,
                   uint64_t least_size = 0);
  // Takes in the end of a call that ReactTo described; `hint` is the peer's own. With a quarantine
  // goes what the peer declared, unless the base was found equal to it: it binds nobody any more,
  // the peer itself neither.
  void Apply(PeerStanding* peer, const PeerReaction& reaction, absl::Duration hint, absl::Time now);
  // Good bytes came: a denial is over.
  void OnBytes(PeerStanding* peer);

  // How the peer stands now: quarantined, denied or paused; and its own hint.
  struct View {
    bool demoted = false;
    bool has_not = false;  // Its latest answer, not long ago, was NOT_AVAILABLE.
    absl::Time not_before = absl::InfinitePast();
  };
  View ViewOf(const PeerStanding* peer, absl::Time now) const;

  std::optional<DeclaredFile> Declared(FileKind kind) const;
  bool InBase(FileKind kind) const;

  // Whether the base's object was found equal to the declaration in force.
  bool BaseFoundEqual(FileKind kind) const;
  // The base has what was `declared`. False, and nothing done, when another declaration, or none,
  // is in force by now: the look at the base took time.
  bool MarkBaseEqual(FileKind kind, const DeclaredFile& declared);
  // The base did not have the file just now: a hedge would be in vain for a moment.
  void NoteBaseMissing(FileKind kind, absl::Time now);
  bool HedgeWorthwhile(FileKind kind, absl::Time now) const;
  // What was `declared` is refuted: by the base, which is confirmed to have other bytes, or by a
  // header that maps more. Drops the declaration and quarantines its author; returns the author's
  // address. Nothing, and nothing done, when it is not in force any more.
  std::optional<std::string> Refute(FileKind kind, const DeclaredFile& declared, absl::Time now);

  // The file was written through the provider: nothing known of its bytes holds any more.
  void Forget(FileKind kind);

  // How many lines of this event were left out, when one may be written now; nothing otherwise.
  std::optional<uint64_t> MayLog(PeerStanding* peer, PeerEvent event, absl::Time now);
  // The same for lines about the base.
  std::optional<uint64_t> MayLogBase(absl::Time now);

  // Bytes by source, for tables and counters.
  struct ByteCounts {
    std::atomic<uint64_t> peer{0};
    std::atomic<uint64_t> base{0};
    std::atomic<uint64_t> wasted{0};
  };
  ByteCounts& bytes(FileKind kind) { return bytes_[Index(kind)]; }

 private:
  struct FileFacts {
    std::optional<DeclaredFile> declared;
    bool in_base = false;
    bool base_equal = false;
    absl::Time base_missing_until = absl::InfinitePast();
  };
  static size_t Index(FileKind kind) { return static_cast<size_t>(kind) - 1; }
  bool Declare(PeerStanding* peer, FileKind kind, const FileHead& head, uint64_t least_size)
      PEERCHUNK_REQUIRES(mutex_);
  void Note(PeerStanding* peer, const BuildStatus& status) PEERCHUNK_REQUIRES(mutex_);
  void Quarantine(PeerStanding* peer, absl::Time now) PEERCHUNK_REQUIRES(mutex_);

  const BuildId build_;
  const PeerBudgets& budgets_;
  std::atomic<bool> durable_{false};
  std::atomic<bool> complete_{false};
  std::array<ByteCounts, kAllFileKinds.size()> bytes_;
  mutable Mutex mutex_;
  std::map<std::string, std::unique_ptr<PeerStanding>, std::less<>> standings_
      PEERCHUNK_GUARDED_BY(mutex_);
  std::array<FileFacts, kAllFileKinds.size()> files_ PEERCHUNK_GUARDED_BY(mutex_);
  absl::Time next_base_log_ PEERCHUNK_GUARDED_BY(mutex_) = absl::InfinitePast();
  uint64_t unlogged_base_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
};

}  // namespace peerchunk
