// peerchunk itself: a registry, a template cache and a ChunkService on one side, the checked reader
// of the peer module's client on the other.
#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "bench/contender.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"
#include "peerchunk/peer/grpc_connector.h"
#include "peerchunk/service/chunk_service.h"
#include "peerchunk/template/build_registry.h"
#include "peerchunk/template/template_cache.h"

namespace peerchunk::bench {
namespace {

constexpr BuildFileId kFile{BuildId({0x6f, 1, 2, 3}), FileKind::kMemfile};

std::string IdentityHeader(uint64_t size) {
  const HeaderMetadata metadata{.block_size = kPageBytes,
                                .size = size,
                                .build_id = kFile.build,
                                .base_build_id = kFile.build};
  return Header::CreateIdentity(metadata)->Encode();
}

// Everything that a node serves from, over the sample as the memfile of a build.
absl::Status Serve(const Sample& sample, const std::function<void(int)>& ready) {
  PEERCHUNK_ASSIGN_OR_RETURN(const File folder, File::Open(sample.folder, O_RDONLY | O_DIRECTORY));
  SnapshotFiles files;
  const auto add = [&](FileKind kind, std::string_view bytes) {
    files.paths[kind] = sample.folder + "/" + std::string(FileName(kind));
    return folder.ReplaceFile(FileName(kind), bytes);
  };
  PEERCHUNK_RETURN_IF_ERROR(add(FileKind::kMetadata, "{}"));
  PEERCHUNK_RETURN_IF_ERROR(add(FileKind::kSnapfile, "snap"));
  PEERCHUNK_RETURN_IF_ERROR(add(FileKind::kRootfs, std::string(kPageBytes, 'r')));
  PEERCHUNK_RETURN_IF_ERROR(add(FileKind::kRootfsHeader, IdentityHeader(kPageBytes)));
  PEERCHUNK_RETURN_IF_ERROR(add(FileKind::kMemfileHeader, IdentityHeader(sample.size)));
  files.paths[FileKind::kMemfile] = sample.path;

  ThreadPool pool("bench", 2);
  Metrics metrics;
  PEERCHUNK_ASSIGN_OR_RETURN(
      const auto registry,
      BuildRegistry::Open({.folder = sample.folder + "/builds", .executor = &pool}));
  PEERCHUNK_RETURN_IF_ERROR(registry->Add(kFile.build, files, false));
  TemplateCache::Options cache;
  cache.cache_folder = sample.folder + "/chunks";
  cache.registry = registry.get();
  cache.executor = &pool;
  cache.chunks.executor = &pool;
  cache.open_provider =
      [](const BuildId&,
         const std::vector<std::string>&) -> absl::StatusOr<std::shared_ptr<StorageProvider>> {
    return absl::UnavailableError("the bench has one source");
  };
  PEERCHUNK_ASSIGN_OR_RETURN(const auto templates, TemplateCache::Open(std::move(cache)));
  PEERCHUNK_ASSIGN_OR_RETURN(const auto service,
                             ChunkService::Create(templates.get(), {.metrics = &metrics}));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  service->RegisterWith(builder);
  const auto server = builder.BuildAndStart();
  PEERCHUNK_RETURN_IF_ERROR(service->Start());
  ready(port);
  server->Wait();
  return absl::OkStatus();
}

class Ours final : public Contender {
 public:
  Ours(const Sample& sample, std::unique_ptr<ServerProcess> server)
      : sample_(sample), server_(std::move(server)) {}

  std::string name() const override { return "peerchunk"; }
  absl::Status Connect() override {
    PEERCHUNK_ASSIGN_OR_RETURN(
        const AddressPolicy policy,
        AddressPolicy::Create({.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}}));
    PEERCHUNK_ASSIGN_OR_RETURN(const PeerAddress address,
                               policy.Check("127.0.0.1:" + std::to_string(server_->port())));
    const auto connector = GrpcConnector::Create({});
    PEERCHUNK_ASSIGN_OR_RETURN(demand_, connector->Connect(address, PeerLane::kDemand));
    PEERCHUNK_ASSIGN_OR_RETURN(bulk_, connector->Connect(address, PeerLane::kBulk));
    return absl::OkStatus();
  }

  absl::Status ReadAll() override { return Read(*bulk_, 0, sample_.size); }

  absl::Status ReadPages(uint64_t count, int depth,
                         const std::function<uint64_t()>& next) override {
    std::vector<std::vector<uint64_t>> offsets(depth);
    for (uint64_t i = 0; i < count; ++i) offsets[i % depth].push_back(next());
    std::vector<std::thread> threads;
    std::vector<absl::Status> ends(depth);
    for (int i = 0; i < depth; ++i) {
      threads.emplace_back([&, i] {
        for (const uint64_t offset : offsets[i]) ends[i].Update(Read(*demand_, offset, kPageBytes));
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& end : ends) PEERCHUNK_RETURN_IF_ERROR(end);
    return absl::OkStatus();
  }

 private:
  // As a reader must: every extent's place and checksum, and the declared end.
  absl::Status Read(ChunkServiceClient& client, uint64_t offset, uint64_t length) {
    const auto stream =
        client.GetBuildFile({.file = kFile, .offset = offset, .length = length}, {});
    uint64_t next = offset;
    bool last = false;
    while (true) {
      PEERCHUNK_ASSIGN_OR_RETURN(const auto message, stream->Next(absl::InfiniteFuture()));
      if (!message.has_value()) break;
      last = message->last;
      if (!message->extent) continue;
      if (message->extent->offset != next) return absl::DataLossError("out of order");
      if (!message->extent->zero) {
        uint32_t crc = 0;
        for (std::string_view piece : message->extent->pieces) crc = ExtendCrc32c(crc, piece);
        if (crc != message->extent->crc32c) return absl::DataLossError("wrong checksum");
      }
      next += message->extent->length;
    }
    if (!last || next != offset + length) return absl::DataLossError("cut short");
    return absl::OkStatus();
  }

  const Sample sample_;
  const std::unique_ptr<ServerProcess> server_;
  std::shared_ptr<ChunkServiceClient> demand_;
  std::shared_ptr<ChunkServiceClient> bulk_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Contender>> StartOurs(const Sample& sample) {
  PEERCHUNK_ASSIGN_OR_RETURN(auto server, ServerProcess::Start([&](const auto& ready) {
                               const absl::Status end = Serve(sample, ready);
                               std::fprintf(stderr, "server: %s\n", end.ToString().c_str());
                             }));
  return std::make_unique<Ours>(sample, std::move(server));
}

}  // namespace peerchunk::bench
