#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "peer/base_source.h"
#include "peer/source_set.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"

namespace peerchunk {

// A read of the base that runs beside a peer's silence: one window of bytes, on the directory's
// executor, into memory of its own. Whoever has checked bytes first wins, and it is decided here,
// under one lock, exactly once. Counted as sent when it begins, and then once more by how it ended:
// won, lost, failed or dropped. Shared by the read and the task, so a read may go while the base
// still blocks; nothing waits for a hedge but the end of the directory.
class Hedge {
 public:
  static constexpr uint64_t kWindowBytes = kMiB;

  struct Plan {
    FileKind kind;
    BaseTrust trust;
    uint64_t offset = 0;
    uint64_t most_bytes = 0;  // 0: only what the base's Stat says.
    bool want_stat = false;
    ReadOptions options;  // Its deadline is the hedge's own; its cancellation is replaced.
  };
  struct Result {
    BaseAdmission admission;
    std::string bytes;  // From Plan::offset; fewer than asked for only at the object's end.
  };

  // `on_won` runs on the executor when the base had its answer first: it ends the wait for the
  // peer.
  static std::shared_ptr<Hedge> Start(std::shared_ptr<const SourceSet> sources, Plan plan,
                                      std::function<void()> on_won);

  // The peer has good bytes. True when it is first: the hedge is cancelled and counted as lost.
  // False when the base had won before.
  bool YieldToPeer();
  // The peer is out. True when the task had not begun and never will: read the base directly.
  bool StealIfQueued();
  // Neither won nor still at it.
  bool failed() const;
  // Waits for the result until `deadline`; nothing when it did not come or `cancellation` came
  // first. The result stays with the hedge, and is the caller's to use.
  const Result* Wait(absl::Time deadline, const std::stop_token& cancellation);
  // The read is over, or goes elsewhere.
  void Abandon();

 private:
  enum class State : uint8_t { kQueued, kRunning, kWon, kFailed, kAbandoned };

  Hedge(std::shared_ptr<const SourceSet> sources, Plan plan, std::function<void()> on_won)
      : sources_(std::move(sources)), plan_(std::move(plan)), on_won_(std::move(on_won)) {}
  void Run();
  Result Read();
  // Ends a hedge that has no result. True when the base was being asked for it; one that had not
  // begun was never sent, and gives its token back.
  bool GiveUp() PEERCHUNK_REQUIRES(mutex_);
  void CountWasted(uint64_t bytes) const;

  const std::shared_ptr<const SourceSet> sources_;
  Plan plan_;
  std::function<void()> on_won_;
  std::stop_source stop_;
  mutable Mutex mutex_;
  CondVar changed_;
  State state_ PEERCHUNK_GUARDED_BY(mutex_) = State::kQueued;
  bool taken_ PEERCHUNK_GUARDED_BY(mutex_) = false;  // Somebody has the result.
  Result result_;  // Written by the task before kWon or kFailed, constant after.
};

}  // namespace peerchunk
