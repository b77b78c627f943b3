#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "peer/grpc/message_decoder.h"
#include "peer/grpc/read_parts.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/peer/chunk_service_client.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {

// The longest range that is read over a stream shared with others.
inline constexpr uint64_t kMaxSharedReadBytes = 256 * 1024;

// One ReadBuildFile call, shared by all demand readers of a connection. It has no thread: of the
// readers that wait, one drives the completion queue and hands the others what is theirs; when it
// has its own, another takes over. So a lone reader pays for no thread hop, and many share each
// message both ways. While answers have been coming quickly the driver polls before it blocks.
// Thread-safe; kept alive by its reads.
class ReadStream {
 public:
  // A read under way. All of it belongs to the stream's lock.
  struct Read {
    uint64_t id = 0;
    std::deque<ReadPart> parts;
    std::optional<absl::Status> end;  // Of the whole stream, after the parts.
    bool waiting = false;
    bool cancelled = false;
    CondVar changed;
  };

  ReadStream(std::shared_ptr<grpc::Channel> channel, Clock& clock);
  ~ReadStream();

  // False once the call has ended: what is asked now would end at once.
  bool IsAlive() const;
  // Asks; the request goes out with those of others. Never blocks.
  std::shared_ptr<Read> Ask(const PeerRequest& request, absl::Time deadline);
  // The next part of `read`, or the stream's end. DeadlineExceeded: none came by `wait_until`;
  // Cancelled: Cancel was called.
  absl::StatusOr<ReadPart> Await(Read& read, absl::Time wait_until);
  // Ends a wait, from any thread.
  void Cancel(Read& read);
  // The read wants no more; `answered` when nothing more will come.
  void Leave(Read& read, bool answered);

 private:
  enum class Tag : intptr_t { kWrite = 1, kRead = 2, kFinish = 3 };  // Anything else: a Wake.
  struct Wake;

  // What came off the completion queue.
  struct Event {
    enum class Kind : uint8_t { kNone, kWritten, kParts, kFinishing, kFinished };
    Kind kind = Kind::kNone;
    absl::StatusOr<std::vector<ReadPart>> parts{std::vector<ReadPart>()};
  };

  bool ReadyLocked(Read& read, absl::Time wait_until, absl::StatusOr<ReadPart>& part)
      PEERCHUNK_REQUIRES(mutex_);
  void Drive(Read& read, absl::Time wait_until) PEERCHUNK_REQUIRES(mutex_);
  void Flush() PEERCHUNK_EXCLUDES(mutex_);
  Event TakeEvent(absl::Time wait_until, bool poll);
  std::vector<std::shared_ptr<Read>> ApplyLocked(Event event) PEERCHUNK_REQUIRES(mutex_);
  std::vector<std::shared_ptr<Read>> EndLocked(const absl::Status& status)
      PEERCHUNK_REQUIRES(mutex_);
  std::shared_ptr<Read> NextLeaderLocked() const PEERCHUNK_REQUIRES(mutex_);

  const std::shared_ptr<grpc::Channel> channel_;  // Outlives the call.
  Clock& clock_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer incoming_;  // The driver's, as is finish_status_.
  grpc::Status finish_status_;

  mutable Mutex mutex_;
  uint64_t next_id_ PEERCHUNK_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, std::shared_ptr<Read>> reads_ PEERCHUNK_GUARDED_BY(mutex_);
  v1::ReadBuildFileRequest to_send_ PEERCHUNK_GUARDED_BY(mutex_);
  Read* leader_ PEERCHUNK_GUARDED_BY(mutex_) = nullptr;  // Who drives the queue, with no lock held.
  bool writing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool finishing_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ PEERCHUNK_GUARDED_BY(mutex_);  // Set once.
  absl::Duration usual_wait_ PEERCHUNK_GUARDED_BY(mutex_);
};

// One read over a ReadStream, as a stream of its own. Where the peer does not know the method, the
// read goes on as a GetBuildFile, and `on_unimplemented` is called.
class SharedReadPeerStream final : public PeerStream {
 public:
  SharedReadPeerStream(std::shared_ptr<ReadStream> stream, std::shared_ptr<grpc::Channel> channel,
                       const PeerRequest& request, PeerCallOptions options, Clock& clock,
                       std::function<void()> on_unimplemented);
  ~SharedReadPeerStream() override;

  absl::StatusOr<std::optional<PeerMessage>> Next(absl::Time wait_until) override;
  bool IsAlive() const override;
  void Cancel() override;

 private:
  const std::shared_ptr<ReadStream> stream_;
  const std::shared_ptr<grpc::Channel> channel_;
  const PeerRequest request_;
  const PeerCallOptions options_;
  Clock& clock_;
  const std::function<void()> on_unimplemented_;
  const std::shared_ptr<ReadStream::Read> read_;
  std::unique_ptr<PeerStream> instead_;
  std::optional<MessageDecoder> current_;  // What the caller's pieces point into.
  bool begun_ = false;
  bool answered_ = false;
  std::optional<absl::Status> end_;
  // Last, so that it is gone before anything it cancels.
  std::optional<std::stop_callback<std::function<void()>>> on_cancel_;
};

}  // namespace peerchunk
