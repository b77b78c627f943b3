#include "daemon/sandbox_service.h"

#include <utility>

#include "base/grpc_status.h"
#include "daemon/build_info_message.h"
#include "daemon/call_scope.h"
#include "daemon/node_content.h"
#include "node/fetch_build.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// A resume whose build is "not yet" anywhere has to end, also when the client names no deadline.
constexpr absl::Duration kLongestResume = absl::Minutes(1);
// Between two messages of progress.
constexpr absl::Duration kProgressEvery = absl::Milliseconds(100);

absl::StatusOr<BuildId> ParseBuild(const std::string& text) {
  PEERCHUNK_ASSIGN_OR_RETURN(const BuildId id, BuildId::Parse(text));
  if (id.is_nil()) return absl::InvalidArgumentError("the nil UUID names no build");
  return id;
}

// What went wrong says itself, more often than not, which build it was about to do what with.
absl::Status Named(const absl::Status& status, const std::string& what) {
  return status.message().substr(0, what.size()) == what ? status : Annotate(status, what);
}

absl::Status CheckAbsolute(const std::string& path, std::string_view what) {
  if (path.starts_with('/')) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(AbslView(what), " '", path, "' is not an absolute path"));
}

absl::StatusOr<SnapshotFiles> ToFiles(const v1::PauseRequest& request) {
  SnapshotFiles files;
  const std::pair<FileKind, const std::string&> named[] = {
      {FileKind::kSnapfile, request.snapfile_path()},
      {FileKind::kMetadata, request.metadata_path()},
      {FileKind::kMemfileHeader, request.memfile_header_path()},
      {FileKind::kRootfsHeader, request.rootfs_header_path()},
      {FileKind::kMemfile, request.memfile_path()},
      {FileKind::kRootfs, request.rootfs_path()},
  };
  for (const auto& [kind, path] : named) {
    if (path.empty()) continue;
    PEERCHUNK_RETURN_IF_ERROR(CheckAbsolute(path, FileName(kind)));
    files.paths[kind] = path;
  }
  return files;
}

absl::StatusOr<BuildSources> ToSources(const v1::SandboxConfig& sandbox) {
  BuildSources sources;
  if (!sandbox.source_orchestrator_address().empty()) {
    sources.default_addresses.push_back(sandbox.source_orchestrator_address());
  }
  for (const auto& [layer, address] : sandbox.layer_source_addresses()) {
    PEERCHUNK_ASSIGN_OR_RETURN(const BuildId id, ParseBuild(layer));
    sources.by_build[id].push_back(address);
  }
  return sources;
}

}  // namespace

absl::StatusOr<v1::BuildInfo> SandboxServiceImpl::Pause(const v1::PauseRequest& request) {
  PEERCHUNK_ASSIGN_OR_RETURN(const BuildId id, ParseBuild(request.build_id()));
  PEERCHUNK_ASSIGN_OR_RETURN(const SnapshotFiles files, ToFiles(request));
  PEERCHUNK_ASSIGN_OR_RETURN(
      const NodeBuildInfo info,
      options_.node->Pause(id, files, request.sync() || options_.pause_sync));
  return ToMessage(info, options_.mounts->PathOf(id));
}

absl::StatusOr<v1::BuildInfo> SandboxServiceImpl::Resume(const v1::ResumeRequest& request,
                                                         const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const BuildId id, ParseBuild(request.sandbox().build_id()));
  PEERCHUNK_ASSIGN_OR_RETURN(const BuildSources sources, ToSources(request.sandbox()));
  if (!request.mount_path().empty()) {
    PEERCHUNK_RETURN_IF_ERROR(CheckAbsolute(request.mount_path(), "mount_path"));
  }
  if (!request.fetch_folder().empty()) {
    PEERCHUNK_RETURN_IF_ERROR(CheckAbsolute(request.fetch_folder(), "fetch_folder"));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(std::shared_ptr<Template> build,
                             options_.node->GetTemplate(id, sources, options));
  if (request.mount_path().empty()) {
    PEERCHUNK_RETURN_IF_ERROR(FetchInto(request.fetch_folder(), id, sources, options));
    return Describe(request.sandbox().build_id());
  }
  PEERCHUNK_RETURN_IF_ERROR(options_.mounts->Add(std::move(build), request.mount_path()));
  // All of it or nothing: who is told that it failed, or has left, asked for no mount.
  absl::Status rest = FetchInto(request.fetch_folder(), id, sources, options);
  if (rest.ok() && options.cancellation.stop_requested()) rest = absl::CancelledError("cancelled");
  if (!rest.ok()) {
    options_.mounts->Remove(request.mount_path()).IgnoreError();
    return rest;
  }
  PEERCHUNK_ASSIGN_OR_RETURN(v1::BuildInfo info, Describe(request.sandbox().build_id()));
  info.set_mount_path(request.mount_path());  // Of several, the one that was asked for.
  return info;
}

absl::Status SandboxServiceImpl::FetchInto(const std::string& folder, const BuildId& id,
                                           const BuildSources& sources,
                                           const ReadOptions& options) {
  if (folder.empty()) return absl::OkStatus();
  PEERCHUNK_ASSIGN_OR_RETURN(const auto content, OpenNodeContent(*options_.node, id, sources));
  return peerchunk::FetchBuild(id, *content, {.folder = folder, .read = options}).status();
}

absl::StatusOr<v1::BuildInfo> SandboxServiceImpl::Describe(const std::string& build_id) const {
  PEERCHUNK_ASSIGN_OR_RETURN(const BuildId id, ParseBuild(build_id));
  PEERCHUNK_ASSIGN_OR_RETURN(const NodeBuildInfo info, options_.node->GetBuild(id));
  return ToMessage(info, options_.mounts->PathOf(id));
}

absl::StatusOr<uint64_t> SandboxServiceImpl::Delete(const v1::DeleteBuildRequest& request,
                                                    const ReadOptions& limits) {
  PEERCHUNK_ASSIGN_OR_RETURN(const BuildId id, ParseBuild(request.build_id()));
  if (const std::string mount = options_.mounts->PathOf(id); !mount.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "build ", request.build_id(), " is mounted at ", mount, ": peerchunk umount it first"));
  }
  return options_.node->Delete(id, {.from_base = request.from_base(),
                                    .discard_only_copy = request.discard_only_copy(),
                                    .deadline = limits.deadline,
                                    .cancellation = limits.cancellation});
}

grpc::Status SandboxServiceImpl::Pause(grpc::ServerContext*, const v1::PauseRequest* request,
                                       v1::PauseResponse* response) {
  absl::StatusOr<v1::BuildInfo> paused = Pause(*request);
  if (!paused.ok()) return ToGrpcStatus(Named(paused.status(), "pause " + request->build_id()));
  *response->mutable_build() = *std::move(paused);
  return grpc::Status::OK;
}

grpc::Status SandboxServiceImpl::Resume(grpc::ServerContext* context,
                                        const v1::ResumeRequest* request,
                                        v1::ResumeResponse* response) {
  const CallScope scope(
      *context, request->fetch_folder().empty() ? kLongestResume : absl::InfiniteDuration());
  absl::StatusOr<v1::BuildInfo> resumed = Resume(*request, scope.read_options());
  if (!resumed.ok()) {
    return ToGrpcStatus(Named(resumed.status(), "resume " + request->sandbox().build_id()));
  }
  *response->mutable_build() = *std::move(resumed);
  return grpc::Status::OK;
}

grpc::Status SandboxServiceImpl::ListBuilds(grpc::ServerContext*, const v1::ListBuildsRequest*,
                                            v1::ListBuildsResponse* response) {
  for (const NodeBuildInfo& info : options_.node->ListBuilds()) {
    *response->add_builds() = ToMessage(info, options_.mounts->PathOf(info.id));
  }
  return grpc::Status::OK;
}

grpc::Status SandboxServiceImpl::GetBuild(grpc::ServerContext*, const v1::GetBuildRequest* request,
                                          v1::BuildInfo* response) {
  absl::StatusOr<v1::BuildInfo> info = Describe(request->build_id());
  if (!info.ok()) return ToGrpcStatus(info.status());
  *response = *std::move(info);
  return grpc::Status::OK;
}

grpc::Status SandboxServiceImpl::DeleteBuild(grpc::ServerContext* context,
                                             const v1::DeleteBuildRequest* request,
                                             v1::DeleteBuildResponse* response) {
  const CallScope scope(*context);
  const absl::StatusOr<uint64_t> deleted = Delete(*request, scope.read_options());
  if (!deleted.ok()) return ToGrpcStatus(deleted.status());
  response->set_objects_deleted(*deleted);
  return grpc::Status::OK;
}

grpc::Status SandboxServiceImpl::FetchBuild(grpc::ServerContext* context,
                                            const v1::FetchBuildRequest* request,
                                            grpc::ServerWriter<v1::FetchProgress>* writer) {
  const CallScope scope(*context);
  const absl::StatusOr<BuildId> id = ParseBuild(request->sandbox().build_id());
  if (!id.ok()) return ToGrpcStatus(id.status());
  if (const absl::Status folder = CheckAbsolute(request->folder(), "folder"); !folder.ok()) {
    return ToGrpcStatus(folder);
  }
  const absl::StatusOr<BuildSources> sources = ToSources(request->sandbox());
  if (!sources.ok()) return ToGrpcStatus(sources.status());
  absl::StatusOr<std::unique_ptr<BuildContent>> content =
      OpenNodeContent(*options_.node, *id, *sources);
  if (!content.ok()) return ToGrpcStatus(content.status());

  // What this process had read of these files before is not this fetch's.
  const auto bytes_so_far = [&] {
    SourceBytes sum;
    for (const FileKind kind : kAllFileKinds) {
      const SourceBytes bytes = options_.node->BytesOf({*id, kind});
      sum.peer += bytes.peer;
      sum.base += bytes.base;
    }
    return sum;
  };
  const SourceBytes before = bytes_so_far();
  v1::FetchProgress progress;
  const auto fill = [&](const FetchState& state) {
    progress.set_file(std::string(FileName(state.kind)));
    progress.set_file_size(state.file_size);
    progress.set_file_done(state.file_done);
    progress.set_total_size(state.total_size);
    progress.set_total_done(state.total_done);
    progress.set_bytes_zero(state.zero_bytes);
    const SourceBytes now = bytes_so_far();
    progress.set_bytes_from_peer(now.peer - before.peer);
    progress.set_bytes_from_base(now.base - before.base);
  };
  FetchState last;
  absl::Time told = absl::InfinitePast();
  FetchOptions options{
      .folder = request->folder(), .overwrite = request->overwrite(), .read = scope.read_options()};
  if (request->patience_ms() > 0) options.patience = absl::Milliseconds(request->patience_ms());
  options.on_progress = [&](const FetchState& state) {
    last = state;
    const absl::Time now = Clock::Real().Now();
    if (now - told < kProgressEvery) return;
    told = now;
    fill(state);
    writer->Write(progress);
  };
  const absl::StatusOr<std::vector<FetchedFile>> files =
      peerchunk::FetchBuild(*id, **content, options);
  if (!files.ok()) return ToGrpcStatus(files.status());
  fill(last);
  progress.set_done(true);
  for (const FetchedFile& file : *files) {
    v1::BuildFileInfo& out = *progress.add_files();
    out.set_name(std::string(FileName(file.kind)));
    out.set_size(file.size);
    out.set_crc32c(file.crc32c);
  }
  writer->Write(progress);
  return grpc::Status::OK;
}

grpc::Status SandboxServiceImpl::Unmount(grpc::ServerContext*, const v1::UnmountRequest* request,
                                         v1::UnmountResponse*) {
  const absl::Status removed = options_.mounts->Remove(request->mount_path());
  options_.node->Trim();
  return ToGrpcStatus(removed);
}

grpc::Status SandboxServiceImpl::RetryBuild(grpc::ServerContext*,
                                            const v1::RetryBuildRequest* request,
                                            v1::BuildInfo* response) {
  const absl::StatusOr<BuildId> id = ParseBuild(request->build_id());
  if (!id.ok()) return ToGrpcStatus(id.status());
  if (const absl::Status retried = options_.node->Retry(*id); !retried.ok()) {
    return ToGrpcStatus(retried);
  }
  absl::StatusOr<v1::BuildInfo> info = Describe(request->build_id());
  if (!info.ok()) return ToGrpcStatus(info.status());
  *response = *std::move(info);
  return grpc::Status::OK;
}

grpc::Status SandboxServiceImpl::ReplaceMetadata(grpc::ServerContext*,
                                                 const v1::ReplaceMetadataRequest* request,
                                                 v1::BuildInfo* response) {
  const absl::StatusOr<BuildId> id = ParseBuild(request->build_id());
  if (!id.ok()) return ToGrpcStatus(id.status());
  if (const absl::Status replaced = options_.node->ReplaceMetadata(*id, request->metadata());
      !replaced.ok()) {
    return ToGrpcStatus(replaced);
  }
  absl::StatusOr<v1::BuildInfo> info = Describe(request->build_id());
  if (!info.ok()) return ToGrpcStatus(info.status());
  *response = *std::move(info);
  return grpc::Status::OK;
}

grpc::Status SandboxServiceImpl::GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                                           v1::NodeStatus* response) {
  *response = options_.status;
  response->set_draining(draining_.load(std::memory_order_relaxed));
  for (const std::string& path : options_.mounts->Paths()) response->add_mount_paths(path);
  for (const MetricSample& sample : options_.metrics->Snapshot()) {
    v1::MetricSample& out = *response->add_metrics();
    out.set_name(sample.name);
    for (const auto& [name, value] : sample.labels) (*out.mutable_labels())[name] = value;
    out.set_value(sample.value);
  }
  return grpc::Status::OK;
}

}  // namespace peerchunk
