#include "peerchunk/node/node.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <set>
#include <stop_token>
#include <thread>
#include <utility>

#include <absl/strings/str_join.h>
#include <grpcpp/grpcpp.h>

#include "base/logging.h"
#include "node/build_info.h"
#include "node/change_gate.h"
#include "node/foreign_ancestor.h"
#include "node/socket_address.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/status.h"
#include "peerchunk/peer/grpc_connector.h"
#include "peerchunk/peer/http2_connector.h"
#include "peerchunk/upload/uploader.h"

namespace peerchunk {
namespace {

constexpr size_t kLoadThreads = 8;
constexpr size_t kHedgeThreads = 4;
constexpr size_t kSyncThreads = 1;
constexpr size_t kRelayedFetchThreads = 8;
constexpr absl::Duration kSaveTracesEvery = absl::Seconds(1);

uint64_t RandomSeed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

}  // namespace

// Declared in the order of dependence: what stands below may use what stands above, and goes first.
struct Node::Impl {
  explicit Impl(NodeOptions given)
      : options(std::move(given)),
        metrics(options.metrics != nullptr ? options.metrics : &own_metrics),
        syncs("pc-sync", kSyncThreads),
        hedges("pc-hedge", kHedgeThreads),
        prefetches("pc-prefetch", options.prefetch_threads),
        fetches("pc-fetch", options.fetch_threads, ThreadPool::Turns::kShort),
        fetch_lanes(&fetches, &prefetches),
        relayed_fetches("pc-relayed", kRelayedFetchThreads, ThreadPool::Turns::kShort),
        loads("pc-load", kLoadThreads),
        announcements("pc-announce", 1) {}

  absl::Status Open();
  absl::Status Start(const std::vector<std::string>& bound_addresses);
  absl::Status CheckPlaintext() const;
  absl::Status CheckAddresses(const BuildSources& sources) const;
  absl::Status CheckRoom(const BuildId& id, std::string_view what);
  // `named`, then what NodeOptions::locations knows.
  std::vector<std::string> AddressesOf(const BuildId& id, std::vector<std::string> named) const;
  // Those of them that may be dialled.
  std::vector<PeerAddress> SourcesOf(const BuildId& id) const;
  NodeBuildInfo Describe(const BuildId& id) const;
  void OnMetadataReplaced(const BuildId& id);
  void KeepSavingTraces(const std::stop_token& stop);
  // Builds, other than `id`, whose headers as known here map `id`.
  std::set<BuildId> DescendantsOf(const BuildId& id) const;
  // Why the copy here, or the objects in the base, must not be deleted as `how` says.
  absl::Status CheckDelete(const BuildId& id, const RecordedBuild* record,
                           const DeleteOptions& how) const;
  absl::Status CheckForeignDelete(const BuildId& id, const DeleteOptions& how) const;
  // Tell NodeOptions::locations, in order, and wait for no answer.
  void Announce(const BuildId& id);
  void Withdraw(const BuildId& id);

  const NodeOptions options;
  Metrics own_metrics;
  Metrics* const metrics;
  ThreadPool syncs;
  ThreadPool hedges;
  ThreadPool prefetches;
  ThreadPool fetches;
  LaneExecutor fetch_lanes;
  ThreadPool relayed_fetches;
  ThreadPool loads;
  ThreadPool announcements;  // One thread: they stay in order.
  std::unique_ptr<BuildRegistry> registry;
  std::vector<std::string> own_addresses;            // Set by Start.
  std::optional<AddressPolicy> policy;               // Set by Start.
  std::shared_ptr<ChunkServiceConnector> connector;  // Set by Start.
  std::unique_ptr<PeerDirectory> directory;          // Set by Start.
  // Set by Start. Uses what stands below until Shutdown; is there until all of that has gone, so
  // that whoever comes late finds one that is shut down.
  std::unique_ptr<Uploader> uploader;
  std::unique_ptr<TemplateCache> templates;
  std::unique_ptr<ChunkService> service;
  ChangeGate changes{&Clock::Real()};
  std::atomic<bool> started{false};
  std::jthread saves_traces;  // Begun by Start. Last: it uses all of the above.
};

absl::Status Node::Impl::Open() {
  if (options.base == nullptr) {
    return absl::InvalidArgumentError("a node needs a base: NodeOptions::base is null");
  }
  if (options.data_folder.empty()) {
    return absl::InvalidArgumentError("a node needs a folder: NodeOptions::data_folder is empty");
  }
  PEERCHUNK_ASSIGN_OR_RETURN(registry,
                             BuildRegistry::Open({.folder = options.data_folder + "/builds",
                                                  .executor = &syncs,
                                                  .base = options.base->Describe(),
                                                  .metrics = metrics}));

  TemplateCache::Options cache;
  cache.cache_folder = options.data_folder + "/chunks";
  cache.cache_capacity_bytes = options.cache_capacity_bytes;
  cache.chunks.chunk_bytes = options.chunk_bytes;
  cache.chunks.executor = &fetch_lanes;
  cache.chunks.relay_executor = &relayed_fetches;
  cache.chunks.max_read_ahead_bytes = options.max_read_ahead_bytes;
  cache.chunks.metrics = metrics;
  cache.open_provider = [this](const BuildId& build, const std::vector<std::string>& addresses) {
    return directory->OpenBuild(build, AddressesOf(build, addresses), options.base);
  };
  cache.registry = registry.get();
  cache.executor = &loads;
  cache.working_set_executor = &prefetches;
  if (options.record_working_sets) cache.trace_folder = options.data_folder + "/traces";
  cache.record_served = options.record_working_sets;
  cache.on_metadata_replaced = [this](const BuildId& id) { OnMetadataReplaced(id); };
  cache.metrics = metrics;
  PEERCHUNK_ASSIGN_OR_RETURN(templates, TemplateCache::Open(std::move(cache)));

  ChunkService::Options serve = options.service;
  serve.metrics = metrics;
  PEERCHUNK_ASSIGN_OR_RETURN(service, ChunkService::Create(templates.get(), serve));
  return absl::OkStatus();
}

absl::Status Node::Impl::Start(const std::vector<std::string>& bound_addresses) {
  if (started.load()) return absl::FailedPreconditionError("Node::Start twice");
  AddressPolicy::Options rules;
  rules.networks = options.peer_networks;
  own_addresses = bound_addresses.empty() ? options.listen_addresses : bound_addresses;
  rules.own_addresses = own_addresses;
  PEERCHUNK_ASSIGN_OR_RETURN(policy, AddressPolicy::Create(rules));
  PEERCHUNK_RETURN_IF_ERROR(CheckPlaintext());

  PeerDirectory::Options peers{.policy = *policy};
  if (options.peer_credentials != nullptr) {
    connector = GrpcConnector::Create({.credentials = options.peer_credentials});
  } else {
    connector = Http2Connector::Create(
        {.tls = options.peer_tls, .insecure_plaintext = options.insecure_plaintext});
  }
  peers.connector = connector;
  peers.budgets = options.budgets;
  peers.executor = &hedges;
  peers.metrics = metrics;
  peers.seed = RandomSeed();
  PEERCHUNK_ASSIGN_OR_RETURN(directory, PeerDirectory::Create(std::move(peers)));

  Uploader::Options uploads;
  uploads.parallel_builds = options.upload_parallelism;
  uploads.max_attempts = options.upload_max_attempts;
  uploads.metrics = metrics;
  uploads.seed = RandomSeed();
  uploads.ancestor_is_durable = [this](const BuildId& ancestor,
                                       const std::stop_token& stop) -> absl::StatusOr<bool> {
    if (directory->KnownDurable(ancestor)) return true;
    return ForeignAncestorIsDurable(ancestor, SourcesOf(ancestor), *connector, *options.base, stop);
  };
  uploads.on_confirmed = [this](const BuildId& build) { templates->UpdatePins(build); };
  PEERCHUNK_ASSIGN_OR_RETURN(
      uploader, Uploader::Start(registry.get(), options.base.get(), std::move(uploads)));
  started.store(true);
  if (options.record_working_sets) {
    saves_traces = std::jthread([this](const std::stop_token& stop) { KeepSavingTraces(stop); });
  }
  for (const auto& build : registry->List()) Announce(build->id);
  return service->Start();
}

// The server's own credentials are the embedder's: whoever dials without any is served without.
absl::Status Node::Impl::CheckPlaintext() const {
  if (options.peer_tls != nullptr || options.peer_credentials != nullptr) return absl::OkStatus();
  for (const std::string& text : own_addresses) {
    PEERCHUNK_ASSIGN_OR_RETURN(const ListenAddress address, ListenAddress::Parse(text));
    if (address.is_loopback()) continue;
    if (!options.insecure_plaintext) {
      return absl::FailedPreconditionError(absl::StrCat(
          "listening on ", text,
          ", beyond loopback, without credentials: everyone on that network could read this "
          "machine's snapshots. Serve and dial with TLS (NodeOptions::peer_tls); or, on a "
          "network that you trust, set NodeOptions::insecure_plaintext"));
    }
    Logger("node").warn("event=plaintext_beyond_loopback address={}", text);
  }
  return absl::OkStatus();
}

void Node::Impl::KeepSavingTraces(const std::stop_token& stop) {
  Clock& clock = Clock::Real();
  while (clock.SleepUntil(clock.Now() + kSaveTracesEvery, stop)) templates->SaveTraces();
}

// The template holds the bytes that it was loaded with; the next look-up loads the new ones.
void Node::Impl::OnMetadataReplaced(const BuildId& id) {
  templates->Reload(id);
  templates->UpdatePins(id);
  if (uploader != nullptr) uploader->Enqueue(id);
}

absl::Status Node::Impl::CheckRoom(const BuildId& id, std::string_view what) {
  if (templates->HasRoom()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      AbslView(what), " ", id.ToString(),
      ": what may not be evicted, builds that are not durable yet or are in use, fills the cache "
      "budget of ",
      options.cache_capacity_bytes,
      " bytes: wait for uploads, raise the budget (--cache-capacity), or use another node"));
}

std::vector<std::string> Node::Impl::AddressesOf(const BuildId& id,
                                                 std::vector<std::string> named) const {
  if (options.locations == nullptr) return named;
  for (std::string& address : options.locations->AddressesOf(id)) {
    const bool known = std::find(named.begin(), named.end(), address) != named.end();
    if (!known && policy->Check(address).ok()) named.push_back(std::move(address));
  }
  return named;
}

std::vector<PeerAddress> Node::Impl::SourcesOf(const BuildId& id) const {
  std::vector<PeerAddress> sources;
  for (const std::string& address : AddressesOf(id, templates->SourcesOf(id))) {
    // One that was recorded may be refused today.
    if (auto allowed = policy->Check(address); allowed.ok()) sources.push_back(*allowed);
  }
  return sources;
}

void Node::Impl::Announce(const BuildId& id) {
  if (options.locations == nullptr) return;
  announcements.Run(Priority::kDemand, [locations = options.locations, id, own = own_addresses] {
    locations->Add(id, own);
  });
}

void Node::Impl::Withdraw(const BuildId& id) {
  if (options.locations == nullptr) return;
  announcements.Run(Priority::kDemand, [locations = options.locations, id, own = own_addresses] {
    locations->Remove(id, own);
  });
}

absl::Status Node::Impl::CheckAddresses(const BuildSources& sources) const {
  const auto check = [this](const std::vector<std::string>& addresses) -> absl::Status {
    for (const std::string& address : addresses) {
      PEERCHUNK_RETURN_IF_ERROR(policy->Check(address));
    }
    return absl::OkStatus();
  };
  PEERCHUNK_RETURN_IF_ERROR(check(sources.default_addresses));
  for (const auto& [layer, addresses] : sources.by_build) {
    PEERCHUNK_RETURN_IF_ERROR(check(addresses));
  }
  return absl::OkStatus();
}

NodeBuildInfo Node::Impl::Describe(const BuildId& id) const {
  NodeBuildInfo info;
  info.id = id;
  if (const auto record = registry->Find(id)) AddRecord(*record, info);
  const std::shared_ptr<Template> loaded = templates->GetCachedTemplate(id);
  if (loaded != nullptr) AddTemplate(*loaded, *templates, *directory, info);
  if (directory != nullptr) AddSources(directory->FilesOf(id), info);
  return info;
}

std::set<BuildId> Node::Impl::DescendantsOf(const BuildId& id) const {
  std::set<BuildId> descendants;
  for (const auto& record : registry->List()) {
    const auto& ancestors = record->ancestors;
    if (std::find(ancestors.begin(), ancestors.end(), id) != ancestors.end()) {
      descendants.insert(record->id);
    }
  }
  for (const BuildId& loaded : templates->LoadedBuilds()) {
    if (loaded == id) continue;
    const std::shared_ptr<Template> child = templates->GetCachedTemplate(loaded);
    if (child != nullptr && Maps(*child, id)) descendants.insert(loaded);
  }
  return descendants;
}

absl::Status Node::Impl::CheckDelete(const BuildId& id, const RecordedBuild* record,
                                     const DeleteOptions& how) const {
  const std::set<BuildId> descendants = DescendantsOf(id);
  const std::string children = absl::StrJoin(
      descendants, ", ",
      [](std::string* out, const BuildId& child) { absl::StrAppend(out, child.ToString()); });
  if (record != nullptr && !HeldByBase(*record) && !how.discard_only_copy) {
    return absl::FailedPreconditionError(absl::StrCat(
        "build ", id.ToString(), " is ", AbslView(BuildStateName(record->status.state)),
        record->status.state == BuildState::kDurable
            ? ", but its newest metadata is on this node only. Wait until that is uploaded"
            : ": this is its only copy. Wait until it is DURABLE",
        ", or say --discard-only-copy",
        children.empty() ? "" : ". Without it these builds could not be read: ", children));
  }
  if (!how.from_base) return absl::OkStatus();
  if (!descendants.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("build ", id.ToString(), " is a layer of build ", children,
                     ", which could not be read without it: delete that one first"));
  }
  if (record != nullptr || how.discard_only_copy) return absl::OkStatus();
  return CheckForeignDelete(id, how);
}

// The node that paused it may be at work on its objects.
absl::Status Node::Impl::CheckForeignDelete(const BuildId& id, const DeleteOptions& how) const {
  const auto refuse = [&](const std::string& why) {
    return absl::FailedPreconditionError(absl::StrCat(
        "build ", id.ToString(), " was not paused here and ", why,
        ": delete it on the node that paused it, or say --discard-only-copy if that is gone"));
  };
  if (connector != nullptr) {
    const std::vector<PeerAddress> sources = SourcesOf(id);
    if (const PeerAddress* at_work = SourceAtWork(id, sources, *connector)) {
      return refuse(absl::StrCat("is not DURABLE at ", at_work->ToString()));
    }
  }
  PEERCHUNK_ASSIGN_OR_RETURN(
      const auto metadata,
      options.base->OpenBlob(BuildFileId{id, FileKind::kMetadata}.ObjectPath()));
  PEERCHUNK_ASSIGN_OR_RETURN(
      const bool complete,
      metadata->Exists({.deadline = how.deadline, .cancellation = how.cancellation}));
  if (complete) return absl::OkStatus();
  return refuse(absl::StrCat("its metadata.json is not in ", options.base->Describe(),
                             ", so it may still be on its way there"));
}

Node::Node(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Node::~Node() { Shutdown(absl::InfinitePast()); }

absl::StatusOr<std::unique_ptr<Node>> Node::Create(NodeOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  PEERCHUNK_RETURN_IF_ERROR(impl->Open());
  return std::unique_ptr<Node>(new Node(std::move(impl)));
}

void Node::RegisterWith(grpc::ServerBuilder& builder) { impl_->service->RegisterWith(builder); }

absl::Status Node::Start(const std::vector<std::string>& bound_addresses) {
  return impl_->Start(bound_addresses);
}

absl::StatusOr<NodeBuildInfo> Node::Pause(const BuildId& id, const SnapshotFiles& files) {
  return Pause(id, files, impl_->options.pause_sync);
}

absl::StatusOr<NodeBuildInfo> Node::Pause(const BuildId& id, const SnapshotFiles& files,
                                          bool sync) {
  if (!impl_->started.load()) return absl::FailedPreconditionError("Node::Pause before Start");
  std::optional<ChangeGate::Pass> pass = impl_->changes.Enter(id, ChangeGate::Change::kPause);
  if (!pass) {
    return absl::UnavailableError("this node is draining and takes no new pauses: pause elsewhere");
  }
  PEERCHUNK_RETURN_IF_ERROR(impl_->CheckRoom(id, "pause"));
  PEERCHUNK_RETURN_IF_ERROR(impl_->registry->Add(id, files, sync, [this](const BuildId& ancestor) {
    return impl_->templates->SourcesOf(ancestor);
  }));
  impl_->uploader->Enqueue(id);
  impl_->Announce(id);
  pass.reset();
  // The build is safe and served by now; a template that does not load is tried again when asked
  // for.
  if (auto loaded = impl_->templates->AddSnapshot(id, {}); !loaded.ok()) {
    Logger("node").warn("event=snapshot_not_loaded build={} cause=\"{}\"", id.ToString(),
                        loaded.status().ToString());
  }
  return impl_->Describe(id);
}

absl::StatusOr<std::shared_ptr<Template>> Node::GetTemplate(const BuildId& id,
                                                            const BuildSources& sources,
                                                            const ReadOptions& options) {
  if (!impl_->started.load()) {
    return absl::FailedPreconditionError("Node::GetTemplate before Start");
  }
  PEERCHUNK_RETURN_IF_ERROR(impl_->CheckAddresses(sources));
  if (impl_->registry->Find(id) == nullptr && impl_->templates->GetCachedTemplate(id) == nullptr) {
    PEERCHUNK_RETURN_IF_ERROR(impl_->CheckRoom(id, "resume"));
  }
  return impl_->templates->GetTemplate(id, sources, options);
}

absl::StatusOr<std::shared_ptr<StorageProvider>> Node::OpenBuild(
    const BuildId& id, const std::vector<std::string>& addresses) {
  if (!impl_->started.load()) return absl::FailedPreconditionError("Node::OpenBuild before Start");
  PEERCHUNK_RETURN_IF_ERROR(impl_->CheckRoom(id, "fetch"));
  return impl_->directory->OpenBuild(id, impl_->AddressesOf(id, addresses), impl_->options.base);
}

SourceBytes Node::BytesOf(const BuildFileId& file) const {
  return impl_->directory == nullptr ? SourceBytes{} : impl_->directory->BytesOf(file);
}

absl::StatusOr<NodeBuildInfo> Node::GetBuild(const BuildId& id) const {
  NodeBuildInfo info = impl_->Describe(id);
  const auto record = impl_->registry->Find(id);
  info.loaded_or_recorded = record != nullptr || impl_->templates->GetCachedTemplate(id) != nullptr;
  if (!info.loaded_or_recorded && info.files.empty()) {
    return absl::NotFoundError(absl::StrCat(
        "build ", id.ToString(), " was neither paused nor resumed nor fetched on this node"));
  }
  if (info.layers.empty() && record != nullptr && impl_->directory != nullptr) {
    const absl::Status added =
        AddRecordedLayers(*record, *impl_->registry, *impl_->templates, *impl_->directory, info);
    if (!added.ok()) {  // The state, and its reason, say what is wrong with the build.
      Logger("node").warn("event=layers_not_shown build={} cause=\"{}\"", id.ToString(),
                          added.ToString());
    }
  }
  return info;
}

std::vector<NodeBuildInfo> Node::ListBuilds() const {
  std::set<BuildId> ids;
  for (const auto& record : impl_->registry->List()) ids.insert(record->id);
  for (const BuildId& id : impl_->templates->LoadedBuilds()) ids.insert(id);
  std::vector<NodeBuildInfo> builds;
  for (const BuildId& id : ids) builds.push_back(impl_->Describe(id));
  return builds;
}

absl::Status Node::ReplaceMetadata(const BuildId& id, std::string_view bytes) {
  const std::optional<ChangeGate::Pass> pass =
      impl_->changes.Enter(id, ChangeGate::Change::kNewMetadata);
  if (!pass) {
    return absl::UnavailableError(
        "this node is draining and takes no new metadata: replace it after its next start");
  }
  PEERCHUNK_RETURN_IF_ERROR(impl_->registry->ReplaceMetadata(id, bytes));
  impl_->OnMetadataReplaced(id);
  return absl::OkStatus();
}

absl::Status Node::Retry(const BuildId& id) {
  PEERCHUNK_RETURN_IF_ERROR(impl_->registry->Retry(id));
  if (impl_->uploader != nullptr) impl_->uploader->Enqueue(id);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Node::Delete(const BuildId& id, const DeleteOptions& options) {
  const auto record = impl_->registry->Find(id);
  const bool loaded = impl_->templates->GetCachedTemplate(id) != nullptr;
  if (record == nullptr && !loaded && !options.from_base) {
    return absl::NotFoundError(
        absl::StrCat("build ", id.ToString(), " was neither paused nor resumed on this node"));
  }
  PEERCHUNK_RETURN_IF_ERROR(impl_->CheckDelete(id, record.get(), options));
  std::optional<Uploader::Hold> hold;  // Until all is gone; after an error the upload goes on.
  if (record != nullptr) {
    if (impl_->uploader != nullptr) hold.emplace(impl_->uploader->Stop(id));
    const auto unless_changed = [&](const RecordedBuild& now) {
      return options.discard_only_copy || HeldByBase(now);
    };
    PEERCHUNK_RETURN_IF_ERROR(impl_->registry->Remove(id, unless_changed));
    impl_->Withdraw(id);
  }
  impl_->templates->Evict(id);
  if (!options.from_base) return 0;
  absl::StatusOr<uint64_t> deleted = impl_->options.base->DeleteObjectsWithPrefix(
      id.ToString() + "/", {.deadline = options.deadline, .cancellation = options.cancellation});
  if (deleted.ok()) return deleted;
  // No record says any more that this may be done, and metadata.json may be gone already.
  return Annotate(deleted.status(),
                  absl::StrCat("build ", id.ToString(),
                               " is no longer here, but the base may still have some of its "
                               "objects: delete those with rm --from-base --discard-only-copy"));
}

std::vector<NodeBuildInfo> Node::NotDurable() const {
  std::map<BuildId, NodeBuildInfo> left;
  // First, so that one that ends meanwhile is found among the records.
  for (const auto& [id, change] : impl_->changes.UnderWay()) {
    NodeBuildInfo info = impl_->Describe(id);
    info.changing = true;
    info.reason = change == ChangeGate::Change::kPause ? "its pause is under way"
                                                       : "its metadata.json is being replaced";
    left.emplace(id, std::move(info));
  }
  for (const auto& record : impl_->registry->List()) {
    if (HeldByBase(*record) || left.contains(record->id)) continue;
    left.emplace(record->id, impl_->Describe(record->id));
  }
  std::vector<NodeBuildInfo> builds;
  for (auto& [id, info] : left) builds.push_back(std::move(info));
  return builds;
}

std::vector<NodeBuildInfo> Node::Drain(absl::Time deadline) {
  impl_->changes.Close();
  impl_->changes.WaitUntilEmpty(deadline);
  if (impl_->uploader != nullptr) impl_->uploader->WaitIdle(deadline);
  impl_->service->BeginShutdown();
  return NotDurable();
}

void Node::Shutdown(absl::Time deadline) {
  impl_->changes.Close();
  impl_->changes.WaitUntilEmpty(deadline);
  if (impl_->saves_traces.joinable()) {
    impl_->saves_traces.request_stop();
    impl_->saves_traces.join();
  }
  if (impl_->uploader != nullptr) impl_->uploader->Shutdown();
  impl_->service->Shutdown(deadline);
}

void Node::Trim() { impl_->templates->Trim(); }

TemplateCache& Node::templates() { return *impl_->templates; }

const std::vector<std::string>& Node::StartupReport() const {
  return impl_->registry->StartupReport();
}

}  // namespace peerchunk
