#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "peer/http2/connection.h"
#include "peer/wire/in_order_placement.h"
#include "peer/wire/message_decoder.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk::http2 {

// The connection to make a call on: the one in use, or a new one when that is of no more use.
using ConnectionSource = std::function<absl::StatusOr<std::shared_ptr<Connection>>()>;

// A call with one request. Where the connection turns out to have gone while nobody used it, the
// call is made once more over a new one. Used by one thread, except Cancel.
class SingleCall {
 public:
  // `placement`: where the data of a GetBuildFile go; not written to after the destructor.
  SingleCall(ConnectionSource connections, std::string_view method, std::string request,
             PeerCallOptions options, Clock& clock,
             std::optional<InOrderPlacement> placement = std::nullopt);
  ~SingleCall();

  // The next message; nothing at the end of a call that ended with OK. DeadlineExceeded when none
  // came by `wait_until`, or by the call's deadline, and then the call has ended.
  absl::StatusOr<std::optional<MessageBytes>> Next(absl::Time wait_until);
  bool has_ended() const { return end_.has_value(); }
  void Cancel();

 private:
  class Sink;
  // What the call under way is made of, as it was at one moment.
  struct Parts {
    std::shared_ptr<Connection> connection;
    std::shared_ptr<Waiter> waiter;
    std::shared_ptr<Connection::Call> call;
  };
  Parts Now();
  void Begin();

  const ConnectionSource connections_;
  const std::string_view method_;
  const std::string request_;
  const PeerCallOptions options_;
  Clock& clock_;
  const std::optional<InOrderPlacement> placement_;  // As it is before the first message.
  std::shared_ptr<Sink> sink_;
  bool was_open_ = false;  // The connection had been good before the call.
  bool begun_again_ = false;
  std::optional<absl::Status> end_;

  Mutex mutex_;  // For Cancel. Each connection has a waiter of its own.
  std::shared_ptr<Connection> connection_ PEERCHUNK_GUARDED_BY(mutex_);
  std::shared_ptr<Waiter> waiter_ PEERCHUNK_GUARDED_BY(mutex_);
  std::shared_ptr<Connection::Call> call_ PEERCHUNK_GUARDED_BY(mutex_);
  bool cancelled_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  // Last, so that it is gone before anything it cancels.
  std::optional<std::stop_callback<std::function<void()>>> on_cancel_;
};

// One GetBuildFile.
class Http2PeerStream final : public PeerStream {
 public:
  Http2PeerStream(ConnectionSource connections, const PeerRequest& request,
                  const PeerCallOptions& options, Clock& clock);

  absl::StatusOr<std::optional<PeerMessage>> Next(absl::Time wait_until) override;
  bool IsAlive() const override { return !call_.has_ended() && !malformed_; }
  void Cancel() override { call_.Cancel(); }

 private:
  std::optional<MessageDecoder> current_;  // What the caller's pieces point into.
  std::optional<absl::Status> malformed_;
  SingleCall call_;
};

}  // namespace peerchunk::http2
