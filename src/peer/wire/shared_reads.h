#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peer/wire/message_decoder.h"
#include "peer/wire/read_parts.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk {

// One ReadBuildFile call, shared by all demand readers of a connection, as a transport provides it.
// Thread-safe; kept alive by its reads.
class SharedReads {
 public:
  // A read under way.
  struct Read {
    virtual ~Read() = default;
  };

  virtual ~SharedReads() = default;
  // Asks; the request goes out with those of others. Never blocks.
  virtual std::shared_ptr<Read> Ask(const PeerRequest& request, absl::Time deadline) = 0;
  // The next part of `read`; nothing: none came by `wait_until`. Errors: the end of the whole call,
  // or Cancelled after Cancel.
  virtual absl::StatusOr<std::optional<ReadPart>> Await(Read& read, absl::Time wait_until) = 0;
  // Ends a wait, from any thread.
  virtual void Cancel(Read& read) = 0;
  // The read wants no more; `answered` when nothing more will come.
  virtual void Leave(Read& read, bool answered) = 0;
  // Something came over this call: when it ends, it was good before.
  virtual bool HasAnswered() const = 0;
};

// One read over such a call, as a stream of its own. Where the call turns out to have gone while
// nobody used it, the read is asked once more over a new one.
class SharedReadPeerStream final : public PeerStream {
 public:
  struct Ways {
    // The call to ask over: the one in use, or a new one when that has ended.
    std::function<std::shared_ptr<SharedReads>()> shared;
    // The read by itself, for a peer that does not know ReadBuildFile.
    std::function<std::unique_ptr<PeerStream>()> alone;
  };

  SharedReadPeerStream(Ways ways, const PeerRequest& request, PeerCallOptions options,
                       Clock& clock);
  ~SharedReadPeerStream() override;

  absl::StatusOr<std::optional<PeerMessage>> Next(absl::Time wait_until) override;
  bool IsAlive() const override;
  void Cancel() override;

 private:
  void Ask();
  // What becomes of the read when its call has ended with `why`: true when it goes on.
  bool GoesOn(const absl::Status& why);

  const Ways ways_;
  const PeerRequest request_;
  const PeerCallOptions options_;
  Clock& clock_;
  Mutex mutex_;  // Of which call it is, for Cancel.
  std::shared_ptr<SharedReads> calls_ PEERCHUNK_GUARDED_BY(mutex_);
  std::shared_ptr<SharedReads::Read> read_ PEERCHUNK_GUARDED_BY(mutex_);
  bool cancelled_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  // Set once, by the reader's thread under the lock; that thread needs no lock to read it.
  std::unique_ptr<PeerStream> alone_;
  std::optional<MessageDecoder> current_;  // What the caller's pieces point into.
  bool begun_ = false;
  bool asked_again_ = false;
  bool answered_ = false;
  std::optional<absl::Status> end_;
  // Last, so that it is gone before anything it cancels.
  std::optional<std::stop_callback<std::function<void()>>> on_cancel_;
};

}  // namespace peerchunk
