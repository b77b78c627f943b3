#pragma once

#include <memory>
#include <optional>
#include <stop_token>

#include <absl/status/status.h>

#include "peer/recent_rate.h"
#include "peer/source_set.h"
#include "peer/stream_check.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk {

// One call to one peer on behalf of one read: the stream, the check of its messages, and the time
// it may take (dial, first byte, stall by rate). Tells the peer's breaker and first-byte estimate
// what it saw. Used by the read's thread; the destructor cancels the call.
class PeerAttempt {
 public:
  struct Plan {
    PeerRequest request;
    bool wants_bytes = true;  // Otherwise the head is all that is asked for.
    absl::Time deadline;      // Of the read.
    // From then on the rest of the deadline is kept for other sources, unless the stream is fast
    // enough to end before it.
    absl::Time leave_at;
    bool range_known_valid = false;
    uint64_t least_size = 0;  // Of the file.
    char* into = nullptr;     // As PeerCallOptions has it.
  };

  // What came of waiting.
  struct Step {
    enum class Kind : uint8_t {
      kWaiting,   // `wake_at` came first.
      kHead,      // The head is there and says AVAILABLE; no bytes yet.
      kExtent,    // Checked bytes, the next in order; valid until the next step.
      kFinished,  // Every byte that was asked for has come.
      kFailed,    // `event`: this attempt is over.
    };
    Kind kind = Kind::kWaiting;
    PeerEvent event = PeerEvent::kUnreachable;
    absl::Status cause;
    absl::Duration hint;  // With kNotYet and kOverloaded; zero: none given.
    uint64_t dropped_bytes = 0;
    Extent extent;
    uint32_t crc32c = 0;  // Of the extent's bytes.
  };

  // `stop` cancels the call.
  PeerAttempt(const SourceSet& sources, const PeerLink& peer,
              std::shared_ptr<ChunkServiceClient> client, const Plan& plan,
              const std::stop_token& stop);
  ~PeerAttempt();

  // Waits for the next message until `wake_at`.
  Step Advance(absl::Time wake_at);

  const std::optional<FileHead>& head() const { return check_.head(); }
  // No byte has come and been found good.
  bool silent() const { return bytes_ == 0; }
  absl::Time started() const { return started_; }
  // The read goes on without the answer: another source was first, or the caller left.
  void LeftSilent();

 private:
  Step Judge(const PeerMessage& message);
  Step JudgeHead(const FileHead& head, const PeerMessage& message);
  Step End();
  Step Fail(PeerEvent event, absl::Status cause, absl::Duration hint = absl::ZeroDuration());
  // The event for a budget that is used up at `now`.
  std::optional<PeerEvent> Expired(absl::Time now);
  absl::Time NextLimit(absl::Time now);
  // Whether the rest, as fast as the latest bytes came, ends after the deadline.
  bool TooSlowForDeadline(absl::Time now) const;

  const SourceSet& sources_;
  const PeerLink& peer_;
  const std::shared_ptr<ChunkServiceClient> client_;
  const Plan plan_;
  const bool probe_;
  const absl::Time started_;
  const std::stop_token stop_;
  StreamCheck check_;
  std::unique_ptr<PeerStream> stream_;
  std::optional<absl::Time> connected_at_;
  std::optional<absl::Time> first_message_at_;
  bool verdict_told_ = false;
  absl::Time judge_speed_at_;
  bool found_healthy_ = false;
  uint64_t bytes_ = 0;
  RecentRate rate_;
};

}  // namespace peerchunk
