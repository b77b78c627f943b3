#include "daemon/health_service.h"

#include <chrono>
#include <memory>

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using grpc::health::v1::HealthCheckResponse;

// A server with nothing on it but health.
class HealthServer {
 public:
  explicit HealthServer(HealthService& health) : health_(health) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    connections_ = builder.AddCompletionQueue();  // A server needs one that connections go to.
    health.RegisterWith(builder);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
    poller_ = std::thread([this] { Drain(); });
  }
  ~HealthServer() {
    server_->Shutdown(std::chrono::system_clock::now());
    health_.Shutdown();
    connections_->Shutdown();
    poller_.join();
  }

  const std::string& address() const { return address_; }

 private:
  void Drain() {
    void* tag = nullptr;
    bool ok = false;
    while (connections_->Next(&tag, &ok)) {
    }
  }

  HealthService& health_;
  std::string address_;
  std::unique_ptr<grpc::ServerCompletionQueue> connections_;
  std::unique_ptr<grpc::Server> server_;
  std::thread poller_;
};

TEST(HealthServiceTest, StartsAndStopsInAnyOrderEndCleanly) {
  for (int round = 0; round < 60; ++round) {
    HealthService health({.read_bytes = [] { return absl::OkStatus(); }});
    const HealthServer server(health);
    if (round % 3 != 0) health.Start();
    if (round % 3 != 2) continue;
    grpc::ClientContext context;
    HealthCheckResponse response;
    EXPECT_TRUE(grpc::health::v1::Health::NewStub(
                    grpc::CreateChannel(server.address(), grpc::InsecureChannelCredentials()))
                    ->Check(&context, {}, &response)
                    .ok());
  }
}

TEST(HealthServiceTest, TheLatestReadDecidesAndAHungOneIsNotHealthy) {
  test::SimulatedClock clock;
  Mutex mutex;
  CondVar changed;
  absl::Status result = absl::DataLossError("bad sector");
  bool hang = false;
  bool hanging = false;
  HealthService health({.read_bytes =
                            [&] {
                              const MutexLock lock(mutex);
                              hanging = hang;
                              changed.NotifyAll();
                              while (hang) changed.Wait(mutex);
                              return result;
                            },
                        .clock = &clock});
  const HealthServer server(health);
  EXPECT_EQ(health.Current().code(), absl::StatusCode::kUnavailable);  // Nothing was read yet.
  health.Start();
  clock.AwaitWaiters(1);
  EXPECT_EQ(health.Current().code(), absl::StatusCode::kDataLoss);
  {
    const MutexLock lock(mutex);
    result = absl::OkStatus();
  }
  clock.Advance(absl::Seconds(5));
  clock.AwaitWaiters(1);
  EXPECT_EQ(health.Current(), absl::OkStatus());
  {
    MutexLock lock(mutex);
    hang = true;
    lock.Unlock();
    clock.Advance(absl::Seconds(5));
    lock.Lock();
    while (!hanging) changed.Wait(mutex);
  }
  clock.Advance(absl::Seconds(10));
  EXPECT_EQ(health.Current(), absl::OkStatus());
  clock.Advance(absl::Milliseconds(1));
  EXPECT_EQ(health.Current().code(), absl::StatusCode::kUnavailable);
  const MutexLock lock(mutex);
  hang = false;
  changed.NotifyAll();
}

}  // namespace
}  // namespace peerchunk
