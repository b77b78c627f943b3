#pragma once

#include <stop_token>
#include <thread>

#include <grpcpp/server_context.h>

#include "peerchunk/storage/storage.h"

namespace peerchunk {

// The client's deadline and cancellation of one blocking call, as ReadOptions carry them. gRPC's
// sync API tells of a cancellation only when asked, so a thread asks. Used by the call's own
// thread.
class CallScope {
 public:
  // `longest`: the limit when the client names none.
  explicit CallScope(grpc::ServerContext& context,
                     absl::Duration longest = absl::InfiniteDuration());
  ~CallScope();

  ReadOptions read_options() const;

 private:
  absl::Time deadline_;
  std::stop_source cancelled_;
  std::jthread watcher_;
};

}  // namespace peerchunk
