#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/metrics.h"
#include "peerchunk/base/range.h"
#include "peerchunk/node/build_locations.h"
#include "peerchunk/peer/address_policy.h"
#include "peerchunk/peer/peer_directory.h"
#include "peerchunk/peer/tls_identity.h"
#include "peerchunk/service/chunk_service.h"
#include "peerchunk/template/template_cache.h"

namespace grpc {
class ChannelCredentials;
class ServerBuilder;
}  // namespace grpc

namespace peerchunk {

struct NodeOptions {
  // Builds paused here and chunk caches; created when missing, used by one node at a time.
  std::string data_folder;
  // The storage provider under the peer decorator: LocalStorageProvider, GcsStorageProvider, or
  // any.
  std::shared_ptr<StorageProvider> base;
  // The addresses on which peers reach this node, "ip:port": never dialled by itself, and deciding
  // whether loopback peers are allowed.
  std::vector<std::string> listen_addresses;
  // Asked where a build lies, besides what callers name; told what is paused here. May be null.
  std::shared_ptr<BuildLocations> locations;
  // CIDR networks that peers lie in; empty: the private ranges.
  std::vector<std::string> peer_networks;
  // Who this node is when it dials peers over TLS, and the sign that the daemon's server has TLS
  // too; null: plaintext, which is refused beyond loopback, to dial and to listen on, unless...
  std::shared_ptr<TlsIdentity> peer_tls;
  // ...this is set, by name.
  bool insecure_plaintext = false;
  // In place of both, for credentials that only gRPC knows: peers are then dialled by gRPC's own
  // client, which is slower.
  std::shared_ptr<grpc::ChannelCredentials> peer_credentials;

  uint64_t cache_capacity_bytes = 64ull << 30;
  uint64_t chunk_bytes = 256 * kKiB;
  size_t fetch_threads = 16;
  size_t prefetch_threads = 8;  // For bytes that nobody waits for.
  // How far ahead of one sequence of a guest's reads; less than a chunk: not at all.
  uint64_t max_read_ahead_bytes = 8 * kMiB;
  // Of builds paused here, what peers read first is put into their metadata for whoever resumes
  // them next; of builds resumed here it is kept for this node's own next resume.
  bool record_working_sets = true;
  bool pause_sync = false;  // Pause waits until the build is safe against a power cut.
  size_t upload_parallelism = 2;
  uint64_t upload_max_attempts = 0;  // 0: no limit.
  PeerBudgets budgets;
  ChunkService::Options service;  // metrics in it is set by the node.
  Metrics* metrics = nullptr;     // Borrowed; null: the node keeps its own.
};

// Of one file of a build, for lists.
struct NodeFileInfo {
  FileKind kind;
  uint64_t size = 0;  // 0 too while it is not known: read from the base only.
  std::optional<uint32_t> crc32c;
  bool in_base = false;
  SourceBytes bytes;  // By where this process got them from, so far.
};

// Of one layer that a device of a loaded build maps.
struct NodeLayerInfo {
  BuildId build;
  FileKind diff;
  uint64_t mapped_bytes = 0;
  std::vector<std::string> sources;
  SourceBytes bytes;  // By where this process got them from, so far.
};

struct NodeBuildInfo {
  BuildId id;
  // Null state (kUnknown): paused elsewhere and loaded here...
  BuildState state = BuildState::kUnknown;
  bool loaded_or_recorded =
      true;  // ...or neither: only copied from here and there, as a fetch does.
  // Paused here, and the base does not hold all of it yet: not DURABLE, or with newer metadata.
  bool only_copy = false;
  // Of NotDurable and Drain: a pause of it, or a replacement of its metadata, is under way.
  bool changing = false;
  std::string reason;
  uint64_t upload_attempts = 0;
  std::vector<NodeFileInfo> files;
  std::vector<NodeLayerInfo> layers;  // Of GetBuild, and of lists where the build is loaded.
  uint64_t memfile_size = 0;
  uint64_t rootfs_size = 0;
  uint64_t zero_bytes_read = 0;
};

struct DeleteOptions {
  bool from_base = false;          // The objects in the base too.
  bool discard_only_copy = false;  // Even when this is, or may be, the last way to the build.
  // Of what is asked of the base, and deleted there.
  absl::Time deadline = absl::InfiniteFuture();
  std::stop_token cancellation;
};

// The library's front door for an embedding daemon: one per process and data folder. The daemon
// owns the grpc::Server; the node adds its ChunkService to it. Thread-safe once started.
//
//   auto node = Node::Create(options);              grpc::ServerBuilder builder; ...
//   (*node)->RegisterWith(builder);                 auto server = builder.BuildAndStart();
//   (*node)->Start();                               ... Pause, GetTemplate, ...
//   (*node)->Drain(deadline);  server->Shutdown(deadline);  (*node)->Shutdown(deadline);
class Node {
 public:
  static absl::StatusOr<std::unique_ptr<Node>> Create(NodeOptions options);
  ~Node();

  void RegisterWith(grpc::ServerBuilder& builder);
  // Starts serving, and uploading what an earlier process left. `bound_addresses` replaces
  // NodeOptions::listen_addresses, for a server whose ports are known only once it is built.
  // FailedPrecondition: one of them is beyond loopback and nothing says how that is safe.
  absl::Status Start(const std::vector<std::string>& bound_addresses = {});

  // Takes over a snapshot's files (BuildRegistry::Add). When it returns, peers are served and the
  // upload is queued. Unavailable while draining; ResourceExhausted when the disk budget is used up
  // by what may not be evicted.
  absl::StatusOr<NodeBuildInfo> Pause(const BuildId& id, const SnapshotFiles& files);
  // As above and on disk before it returns, whatever NodeOptions::pause_sync says.
  absl::StatusOr<NodeBuildInfo> Pause(const BuildId& id, const SnapshotFiles& files, bool sync);

  // Makes a build ready for use here. Addresses are checked by policy before anything is dialled.
  // ResourceExhausted as in Pause, for a build that is neither loaded nor recorded here.
  absl::StatusOr<std::shared_ptr<Template>> GetTemplate(const BuildId& id,
                                                        const BuildSources& sources,
                                                        const ReadOptions& options = {});

  // A provider for bulk copies, which do not pass through the chunk caches: reads this build's
  // objects from the nodes at `addresses` (checked by policy) first, then from the base. Must not
  // outlive the node. ResourceExhausted as in GetTemplate.
  absl::StatusOr<std::shared_ptr<StorageProvider>> OpenBuild(
      const BuildId& id, const std::vector<std::string>& addresses);
  // Where the bytes of a file came from so far, in this process.
  SourceBytes BytesOf(const BuildFileId& file) const;

  // Paused here, loaded here, or read here since the node started; NotFound otherwise.
  absl::StatusOr<NodeBuildInfo> GetBuild(const BuildId& id) const;
  std::vector<NodeBuildInfo> ListBuilds() const;

  // Replaces metadata.json of a build paused here; uploaded again once everything else is durable.
  // Unavailable while draining.
  absl::Status ReplaceMetadata(const BuildId& id, std::string_view bytes);

  // FAILED -> LOCAL, and its upload is queued again.
  absl::Status Retry(const BuildId& id);

  // Removes the local copy. FailedPrecondition: the base does not hold the build and
  // discard_only_copy is not set, or (from_base) a header known here maps it. From the base, a
  // build that was not paused here goes only when it is complete there and no node known to have it
  // is at work on it. Returns how many objects of the base were deleted. An error of the base comes
  // when the local copy is gone: the rest is deleted with from_base and discard_only_copy.
  absl::StatusOr<uint64_t> Delete(const BuildId& id, const DeleteOptions& options);

  // Refuses new pauses and new metadata, and waits for those under way and for uploads. Returns
  // NotDurable() at `deadline`, or when there is nothing to wait for.
  std::vector<NodeBuildInfo> Drain(absl::Time deadline);
  // The builds of which something is not in the base now. One whose pause is under way is
  // `changing` and has no state yet.
  std::vector<NodeBuildInfo> NotDurable() const;
  // As Drain, without waiting for uploads: these end, to be gone on with after the next start. So
  // does what a pause still under way at `deadline` brings.
  void Shutdown(absl::Time deadline);

  // Tells that a template that was handed out is no longer in use: its cache may go.
  void Trim();

  TemplateCache& templates();
  // What was found at start that a human should know, one line each.
  const std::vector<std::string>& StartupReport() const;

 private:
  struct Impl;
  explicit Node(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace peerchunk
