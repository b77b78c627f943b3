#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "peer/wire/read_parts.h"
#include "peer/wire/shared_reads.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk {

// One ReadBuildFile call, shared by all demand readers of a connection. It has no thread: of the
// readers that wait, one drives the completion queue and hands the others what is theirs; when it
// has its own, another takes over. So a lone reader pays for no thread hop, and many share each
// message both ways. While answers have been coming quickly the driver polls before it blocks.
// A peer cannot make it hold more than ReadPartDecoder and, of each read, WaitingParts let it.
// Thread-safe; kept alive by its reads.
class ReadStream final : public SharedReads {
 public:
  ReadStream(std::shared_ptr<grpc::Channel> channel, Clock& clock);
  ~ReadStream() override;

  // False once the call has ended: what is asked now would end at once.
  bool IsAlive() const;
  std::shared_ptr<Read> Ask(const PeerRequest& request, absl::Time deadline) override;
  absl::StatusOr<std::optional<ReadPart>> Await(Read& read, absl::Time wait_until) override;
  void Cancel(Read& read) override;
  void Leave(Read& read, bool answered) override;
  bool HasAnswered() const override;

 private:
  enum class Tag : intptr_t { kWrite = 1, kRead = 2, kFinish = 3 };  // Anything else: a Wake.
  struct Wake;

  // All of it belongs to the stream's lock.
  struct OneRead final : Read {
    uint64_t id = 0;
    WaitingParts parts;
    std::optional<absl::Status> end;  // Of the whole stream, after the parts.
    bool waiting = false;
    bool cancelled = false;
    CondVar changed;
  };
  static OneRead& Of(Read& read) { return static_cast<OneRead&>(read); }

  // What came off the completion queue.
  struct Event {
    enum class Kind : uint8_t { kNone, kWritten, kParts, kFinishing, kFinished };
    Kind kind = Kind::kNone;
    absl::StatusOr<std::vector<ReadPart>> parts{std::vector<ReadPart>()};
  };

  bool ReadyLocked(OneRead& read, absl::Time wait_until,
                   absl::StatusOr<std::optional<ReadPart>>& part) PEERCHUNK_REQUIRES(mutex_);
  void Drive(OneRead& read, absl::Time wait_until) PEERCHUNK_REQUIRES(mutex_);
  void Flush() PEERCHUNK_EXCLUDES(mutex_);
  Event TakeEvent(absl::Time wait_until, bool poll);
  std::vector<std::shared_ptr<OneRead>> ApplyLocked(Event event) PEERCHUNK_REQUIRES(mutex_);
  std::vector<std::shared_ptr<OneRead>> EndLocked(const absl::Status& status)
      PEERCHUNK_REQUIRES(mutex_);
  std::shared_ptr<OneRead> NextLeaderLocked() const PEERCHUNK_REQUIRES(mutex_);

  const std::shared_ptr<grpc::Channel> channel_;  // Outlives the call.
  Clock& clock_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer incoming_;  // The driver's, as are the next two.
  grpc::Status finish_status_;
  ReadPartDecoder decoder_;

  mutable Mutex mutex_;
  uint64_t next_id_ PEERCHUNK_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, std::shared_ptr<OneRead>> reads_ PEERCHUNK_GUARDED_BY(mutex_);
  ReadRequests to_send_ PEERCHUNK_GUARDED_BY(mutex_);
  OneRead* leader_ PEERCHUNK_GUARDED_BY(mutex_) =
      nullptr;  // Who drives the queue, with no lock held.
  bool answered_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool writing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool finishing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ PEERCHUNK_GUARDED_BY(mutex_);  // Set once.
  absl::Duration usual_wait_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
