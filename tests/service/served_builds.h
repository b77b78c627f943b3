#pragma once

#include <memory>
#include <string>
#include <utility>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "peerchunk/base/executor.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/peer/address_policy.h"
#include "peerchunk/peer/http2_connector.h"
#include "peerchunk/service/chunk_service.h"
#include "peerchunk/template/build_registry.h"
#include "peerchunk/template/template_cache.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {

// A real ChunkService on loopback, and on a unix socket, where callers are another peer to it, over
// a registry and a template cache in a temporary folder. Stopped and removed when it goes.
class ServedBuilds {
 public:
  // `base`: where builds that were not paused here come from; null: nowhere.
  explicit ServedBuilds(ChunkService::Options options = {},
                        std::shared_ptr<StorageProvider> base = nullptr) {
    registry = *BuildRegistry::Open({.folder = dir.PathOf("builds"), .executor = &pool});
    TemplateCache::Options cache;
    cache.cache_folder = dir.PathOf("chunks");
    cache.registry = registry.get();
    cache.executor = &pool;
    cache.chunks.executor = &pool;
    cache.chunks.relay_executor = &relays;
    cache.chunks.clock = options.clock;
    cache.open_provider = [base](const BuildId&, const std::vector<std::string>&)
        -> absl::StatusOr<std::shared_ptr<StorageProvider>> {
      if (base != nullptr) return base;
      return absl::UnavailableError("this test has no other source");
    };
    templates = *TemplateCache::Open(std::move(cache));
    options.metrics = &metrics;
    service = *ChunkService::Create(templates.get(), options);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.AddListeningPort(other_address(), grpc::InsecureServerCredentials());
    service->RegisterWith(builder);
    server = builder.BuildAndStart();
    EXPECT_TRUE(service->Start().ok());
    connector = Http2Connector::Create({});
  }
  ~ServedBuilds() { Stop(); }

  // As a process that ends in order; calls under way are cancelled.
  void Stop() {
    if (server == nullptr) return;
    server->Shutdown(std::chrono::system_clock::now());
    service->Shutdown(absl::InfinitePast());
    server.reset();
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(port); }
  std::string other_address() const { return "unix:" + dir.PathOf("socket"); }
  PeerAddress peer() const {
    return *AddressPolicy::Create({.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}})
                ->Check(address());
  }
  std::shared_ptr<ChunkServiceClient> Client(PeerLane lane = PeerLane::kDemand) {
    return *connector->Connect(peer(), lane);
  }
  void Add(const TestBuild& build) {
    const auto added = registry->Add(build.id, build.WriteTo(dir, build.id.ToString()), false);
    ASSERT_TRUE(added.ok()) << added.status();
  }
  void MakeDurable(const TestBuild& build) {
    ASSERT_TRUE(registry->MarkUploading(build.id).ok());
    for (const auto& [kind, bytes] : build.files) {
      if (kind == FileKind::kMetadata) continue;
      ASSERT_TRUE(registry->ConfirmInBase({build.id, kind}).ok());
    }
    ASSERT_TRUE(registry->ConfirmInBase({build.id, FileKind::kMetadata}, 1).ok());
    ASSERT_TRUE(registry->MarkDurable(build.id).ok());
  }

  TempDir dir;
  Metrics metrics;
  ThreadPool pool{"test", 4};
  ThreadPool relays{"relays", 4};
  std::unique_ptr<BuildRegistry> registry;
  std::unique_ptr<TemplateCache> templates;
  std::unique_ptr<ChunkService> service;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
  std::shared_ptr<Http2Connector> connector;
};

}  // namespace peerchunk::test
