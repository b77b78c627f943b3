#include <fcntl.h>

#include <grpcpp/grpcpp.h>

#include "bench/ours.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"
#include "peerchunk/service/chunk_service.h"
#include "peerchunk/template/build_registry.h"
#include "peerchunk/template/template_cache.h"

namespace peerchunk::bench {
namespace {

std::string IdentityHeader(const BuildId& build, uint64_t size) {
  const HeaderMetadata metadata{
      .block_size = kPageBytes, .size = size, .build_id = build, .base_build_id = build};
  return Header::CreateIdentity(metadata)->Encode();
}

// A build around the sample as its memfile; the other files are as small as they can be.
absl::StatusOr<SnapshotFiles> SnapshotOf(const Samples& samples, size_t index,
                                         const std::string& folder) {
  const Sample& sample = samples.files[index];
  const BuildId build = FileOf(index).build;
  PEERCHUNK_ASSIGN_OR_RETURN(const File work, File::Open(folder, O_RDONLY | O_DIRECTORY));
  const std::string snapshot = absl::StrCat("snapshot-", index);
  PEERCHUNK_RETURN_IF_ERROR(work.MakeFolder(snapshot));
  SnapshotFiles files;
  files.paths[FileKind::kMemfile] = samples.PathOf(sample);
  for (const auto& [kind, bytes] : std::map<FileKind, std::string>{
           {FileKind::kMetadata, "{}"},
           {FileKind::kSnapfile, "snap"},
           {FileKind::kRootfs, std::string(kPageBytes, 'r')},
           {FileKind::kRootfsHeader, IdentityHeader(build, kPageBytes)},
           {FileKind::kMemfileHeader, IdentityHeader(build, sample.size)}}) {
    const std::string name = snapshot + "/" + std::string(FileName(kind));
    PEERCHUNK_RETURN_IF_ERROR(work.ReplaceFile(name, bytes));
    files.paths[kind] = folder + "/" + name;
  }
  return files;
}

}  // namespace

BuildFileId FileOf(size_t sample_index) {
  return {BuildId({0x6f, 1, 2, 3, static_cast<uint8_t>(sample_index)}), FileKind::kMemfile};
}

absl::Status ServeSamples(const Samples& samples, const std::string& folder, const TlsFiles& tls,
                          const ServerProcess::Ready& ready) {
  ThreadPool pool("bench", 2);
  Metrics metrics;
  PEERCHUNK_ASSIGN_OR_RETURN(
      const auto registry, BuildRegistry::Open({.folder = folder + "/builds", .executor = &pool}));
  for (size_t i = 0; i < samples.files.size(); ++i) {
    PEERCHUNK_ASSIGN_OR_RETURN(const SnapshotFiles files, SnapshotOf(samples, i, folder));
    // Synced, so that the disk is quiet later.
    PEERCHUNK_RETURN_IF_ERROR(registry->Add(FileOf(i).build, files, true));
  }
  TemplateCache::Options cache;
  cache.cache_folder = folder + "/chunks";
  cache.registry = registry.get();
  cache.executor = &pool;
  cache.record_served = true;
  cache.chunks.executor = &pool;
  cache.open_provider =
      [](const BuildId&,
         const std::vector<std::string>&) -> absl::StatusOr<std::shared_ptr<StorageProvider>> {
    return absl::UnavailableError("the bench has one source");
  };
  PEERCHUNK_ASSIGN_OR_RETURN(const auto templates, TemplateCache::Open(std::move(cache)));
  PEERCHUNK_ASSIGN_OR_RETURN(const auto service,
                             ChunkService::Create(templates.get(), {.metrics = &metrics}));
  PEERCHUNK_ASSIGN_OR_RETURN(const TransportCredentials credentials, MakeTransportCredentials(tls));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(
      "127.0.0.1:0",
      credentials.server != nullptr ? credentials.server : grpc::InsecureServerCredentials(),
      &port);
  service->RegisterWith(builder);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return absl::UnavailableError("cannot listen");
  PEERCHUNK_RETURN_IF_ERROR(service->Start());
  ready(port);
  server->Wait();
  return absl::OkStatus();
}

}  // namespace peerchunk::bench
