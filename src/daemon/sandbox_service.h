#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "daemon/mounts.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/node/node.h"
#include "peerchunk/v1/sandbox_service.grpc.pb.h"

namespace peerchunk {

// The orchestrator's interface to one node, on gRPC's sync API: few calls, each of which may block.
// Served on the control socket only. Thread-safe; everything borrowed outlives it.
class SandboxServiceImpl final : public v1::SandboxService::Service {
 public:
  struct Options {
    Node* node = nullptr;
    Mounts* mounts = nullptr;
    const Metrics* metrics = nullptr;
    bool pause_sync = false;
    v1::NodeStatus status;  // What of GetStatus does not change.
  };
  explicit SandboxServiceImpl(Options options) : options_(std::move(options)) {}

  void SetDraining() { draining_.store(true, std::memory_order_relaxed); }

  grpc::Status Pause(grpc::ServerContext* context, const v1::PauseRequest* request,
                     v1::PauseResponse* response) override;
  grpc::Status Resume(grpc::ServerContext* context, const v1::ResumeRequest* request,
                      v1::ResumeResponse* response) override;
  grpc::Status ListBuilds(grpc::ServerContext* context, const v1::ListBuildsRequest* request,
                          v1::ListBuildsResponse* response) override;
  grpc::Status GetBuild(grpc::ServerContext* context, const v1::GetBuildRequest* request,
                        v1::BuildInfo* response) override;
  grpc::Status DeleteBuild(grpc::ServerContext* context, const v1::DeleteBuildRequest* request,
                           v1::DeleteBuildResponse* response) override;
  grpc::Status FetchBuild(grpc::ServerContext* context, const v1::FetchBuildRequest* request,
                          grpc::ServerWriter<v1::FetchProgress>* writer) override;
  grpc::Status Unmount(grpc::ServerContext* context, const v1::UnmountRequest* request,
                       v1::UnmountResponse* response) override;
  grpc::Status RetryBuild(grpc::ServerContext* context, const v1::RetryBuildRequest* request,
                          v1::BuildInfo* response) override;
  grpc::Status ReplaceMetadata(grpc::ServerContext* context,
                               const v1::ReplaceMetadataRequest* request,
                               v1::BuildInfo* response) override;
  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* request,
                         v1::NodeStatus* response) override;

 private:
  absl::StatusOr<v1::BuildInfo> Pause(const v1::PauseRequest& request);
  absl::StatusOr<v1::BuildInfo> Resume(const v1::ResumeRequest& request,
                                       const ReadOptions& options);
  // An empty folder: nothing is fetched.
  absl::Status FetchInto(const std::string& folder, const BuildId& id, const BuildSources& sources,
                         const ReadOptions& options);
  absl::StatusOr<v1::BuildInfo> Describe(const std::string& build_id) const;
  absl::StatusOr<uint64_t> Delete(const v1::DeleteBuildRequest& request, const ReadOptions& limits);

  const Options options_;
  std::atomic<bool> draining_{false};
};

}  // namespace peerchunk
