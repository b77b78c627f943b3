#pragma once

#include <functional>
#include <memory>
#include <thread>

#include <absl/status/status.h>
#include <absl/time/time.h>
#include <grpcpp/server_builder.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk {

// grpc.health.v1.Health/Check for the peers' port. A thread of its own reads real bytes every few
// seconds; a read that fails, or that hangs, makes the answer NOT_SERVING. Answers come from a
// completion queue that no connection is assigned to, so the data path's threads are not disturbed.
// Calls in this order: RegisterWith, Start (after BuildAndStart), Shutdown (after the server's).
class HealthService {
 public:
  struct Options {
    std::function<absl::Status()> read_bytes;  // May block for as long as a disk does.
    absl::Duration every = absl::Seconds(5);
    absl::Duration stale_after = absl::Seconds(15);
    Clock* clock = &Clock::Real();  // Borrowed.
  };
  explicit HealthService(Options options) : options_(std::move(options)) {}
  ~HealthService();

  void RegisterWith(grpc::ServerBuilder& builder);
  void Start();
  void Shutdown();

  // The latest read was good and is not older than it may be. The reason otherwise.
  absl::Status Current() const;

 private:
  void Read(const std::stop_token& stop);
  void WaitForNext();
  void Answer();

  const Options options_;
  grpc::health::v1::Health::AsyncService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  mutable Mutex mutex_;
  absl::Status latest_ PEERCHUNK_GUARDED_BY(mutex_) = absl::UnavailableError("starting");
  bool over_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  absl::Time finished_ PEERCHUNK_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::jthread reader_;
  std::thread answerer_;
};

}  // namespace peerchunk
