#include "daemon/daemon.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>

#include <absl/strings/str_join.h>
#include <grpcpp/grpcpp.h>

#include "base/chunk_service_limits.h"
#include "base/logging.h"
#include "daemon/control_socket.h"
#include "daemon/health_service.h"
#include "daemon/metrics_exporter.h"
#include "daemon/mounts.h"
#include "daemon/reflection_service.h"
#include "daemon/sandbox_service.h"
#include "node/open_base.h"
#include "node/socket_address.h"
#include "node/transport_credentials.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/template/build_registry.h"

namespace peerchunk {
namespace {

constexpr absl::Duration kShutdownGrace = absl::Seconds(2);
// The largest request of the control service is a metadata.json, with the id of its build.
constexpr int kMaxControlRequestBytes = static_cast<int>(kMaxMetadataBytes + 64 * kKiB);

absl::StatusOr<std::vector<ListenAddress>> ParseListen(const DaemonOptions& options) {
  std::vector<ListenAddress> addresses;
  for (const std::string& text : options.listen) {
    absl::StatusOr<ListenAddress> address = ListenAddress::Parse(text);
    if (!address.ok()) return Annotate(address.status(), "--listen");
    if (!address->is_loopback() && options.tls.empty() && !options.insecure_plaintext) {
      return absl::FailedPreconditionError(absl::StrCat(
          "--listen ", text,
          " is beyond loopback and there is no TLS: everyone on that network "
          "could read this machine's snapshots. Give --tls-cert, --tls-key and --tls-ca; or, on a "
          "network that you trust, --insecure-plaintext"));
    }
    addresses.push_back(*std::move(address));
  }
  return addresses;
}

absl::StatusOr<std::optional<ListenAddress>> ParseMetricsAddress(const DaemonOptions& options) {
  if (options.metrics_address.empty()) return std::nullopt;
  absl::StatusOr<ListenAddress> address = ListenAddress::Parse(options.metrics_address);
  if (!address.ok()) return Annotate(address.status(), "--metrics-address");
  return *std::move(address);
}

absl::Status MakeDataFolder(const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (mkdir(part.c_str(), 0750) != 0 && errno != EEXIST) {
      return Annotate(ErrnoStatus(errno, "make the folder " + part), "--data-folder " + path);
    }
    if (slash == std::string::npos) break;
  }
  const absl::StatusOr<File> folder = File::Open(path, O_RDONLY | O_DIRECTORY);
  if (!folder.ok()) return Annotate(folder.status(), "--data-folder " + path);
  if (faccessat(folder->fd(), ".", W_OK, AT_EACCESS) != 0) {
    return Annotate(ErrnoStatus(errno, "write into it"), "--data-folder " + path);
  }
  return absl::OkStatus();
}

// Reads bytes of a build that was paused here, another one each time; of the folder when there is
// none.
class HealthRead {
 public:
  HealthRead(Node* node, std::string data_folder)
      : node_(node), data_folder_(std::move(data_folder)) {}

  absl::Status operator()() {
    std::vector<BuildId> paused;
    for (const NodeBuildInfo& build : node_->ListBuilds()) {
      if (build.state != BuildState::kUnknown && build.state != BuildState::kFailed) {
        paused.push_back(build.id);
      }
    }
    if (paused.empty()) {
      PEERCHUNK_ASSIGN_OR_RETURN(const File folder,
                                 File::Open(data_folder_, O_RDONLY | O_DIRECTORY));
      return internal::ToStatus(folder.List());
    }
    const BuildFileId file{paused[turn_++ % paused.size()], FileKind::kRootfsHeader};
    const absl::StatusOr<ServedFile> served =
        node_->templates().Resolve(file, /*even_if_durable=*/true, /*with_file=*/true);
    PEERCHUNK_RETURN_IF_ERROR(served);
    if (served->file == nullptr) return absl::OkStatus();  // Deleted meanwhile.
    std::string bytes(64 * kKiB, '\0');
    return internal::ToStatus(served->file->ReadAt(0, absl::MakeSpan(bytes), {}));
  }

 private:
  Node* node_;
  std::string data_folder_;
  size_t turn_ = 0;
};

std::chrono::system_clock::time_point SoonOnWall() {
  return std::chrono::system_clock::now() + absl::ToChronoMilliseconds(kShutdownGrace);
}

}  // namespace

// Declared in the order of dependence; the destructor of Daemon stops the servers first.
struct Daemon::Impl {
  explicit Impl(const DaemonOptions& given) : options(given) {}

  absl::Status Open();
  absl::Status ServePeers();
  absl::Status ServeControl();
  absl::Status ServeMetrics();
  absl::Status RemoveReadyFile();

  const DaemonOptions options;
  std::vector<ListenAddress> listen;
  std::optional<ListenAddress> metrics_address;
  TransportCredentials credentials;
  std::vector<std::string> addresses;
  std::string control;  // As bound.
  Metrics metrics;
  std::unique_ptr<MetricsExporter> exporter;  // Ends after the servers: a drain can be watched.
  std::shared_ptr<StorageProvider> base;
  std::unique_ptr<Node> node;
  std::optional<Mounts> mounts;
  std::optional<HealthService> health;
  std::unique_ptr<grpc::Server> peer_server;
  std::optional<SandboxServiceImpl> sandboxes;
  std::optional<ReflectionService> reflection;
  std::unique_ptr<ControlSocket> control_socket;
  std::unique_ptr<grpc::Server> control_server;
  std::atomic<bool> ready_file_written{false};
};

absl::Status Daemon::Impl::Open() {
  PEERCHUNK_ASSIGN_OR_RETURN(listen, ParseListen(options));
  PEERCHUNK_ASSIGN_OR_RETURN(metrics_address, ParseMetricsAddress(options));
  PEERCHUNK_ASSIGN_OR_RETURN(credentials, MakeTransportCredentials(options.tls));
  PEERCHUNK_RETURN_IF_ERROR(ControlAddress::Parse(options.control));
  for (const ListenAddress& address : listen) PEERCHUNK_RETURN_IF_ERROR(address.CheckFree());
  if (metrics_address) {
    PEERCHUNK_RETURN_IF_ERROR(Annotate(metrics_address->CheckFree(), "--metrics-address"));
  }
  PEERCHUNK_RETURN_IF_ERROR(MakeDataFolder(options.data_folder));

  absl::StatusOr<std::shared_ptr<StorageProvider>> opened =
      OpenBase({.location = options.base,
                .read_bytes_per_second = options.base_read_rate,
                .write_bytes_per_second = options.upload_rate,
                .state_folder = options.data_folder + "/upload-sessions",
                .metrics = &metrics});
  if (!opened.ok()) return Annotate(opened.status(), "--base " + options.base);
  base = *std::move(opened);

  NodeOptions node_options;
  node_options.data_folder = options.data_folder;
  node_options.base = base;
  for (const ListenAddress& address : listen) {
    node_options.listen_addresses.push_back(address.ToString());
  }
  node_options.peer_networks = options.peer_networks;
  node_options.peer_tls = credentials.identity;
  node_options.insecure_plaintext = options.insecure_plaintext;
  node_options.cache_capacity_bytes = options.cache_capacity;
  node_options.chunk_bytes = options.chunk_size;
  node_options.fetch_threads = options.fetch_threads;
  node_options.max_read_ahead_bytes = options.max_read_ahead;
  node_options.record_working_sets = !options.no_working_sets;
  node_options.pause_sync = options.pause_sync;
  node_options.upload_parallelism = options.upload_parallelism;
  node_options.upload_max_attempts = options.upload_max_attempts;
  node_options.service.read_threads = options.read_threads;
  node_options.service.max_streams = options.max_streams;
  node_options.service.max_streams_per_peer = options.max_streams_per_peer;
  node_options.service.max_bytes_in_flight = options.max_bytes_in_flight;
  node_options.service.max_bytes_per_second = options.serve_rate;
  node_options.metrics = &metrics;
  PEERCHUNK_ASSIGN_OR_RETURN(node, Node::Create(std::move(node_options)));
  // From here on the folder is ours, and so is what a dead daemon on it has left.
  PEERCHUNK_RETURN_IF_ERROR(RemoveReadyFile());
  mounts.emplace(options.data_folder + "/overlays", &metrics);
  return absl::OkStatus();
}

absl::Status Daemon::Impl::ServePeers() {
  grpc::ServerBuilder builder;
  // Two daemons on one port would each get some of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxPeerRequestBytes);
  std::vector<int> ports(listen.size(), 0);
  for (size_t i = 0; i < listen.size(); ++i) {
    builder.AddListeningPort(
        listen[i].ToString(),
        credentials.server != nullptr ? credentials.server : grpc::InsecureServerCredentials(),
        &ports[i]);
  }
  node->RegisterWith(builder);
  health.emplace(HealthService::Options{.read_bytes = HealthRead(node.get(), options.data_folder)});
  health->RegisterWith(builder);
  peer_server = builder.BuildAndStart();
  for (size_t i = 0; i < listen.size(); ++i) {
    if (peer_server == nullptr || ports[i] == 0) {
      // The system's reason, unless whoever was there has gone since.
      PEERCHUNK_RETURN_IF_ERROR(listen[i].CheckFree());
      if (peer_server != nullptr) {
        return absl::UnavailableError("cannot listen on " + listen[i].ToString());
      }
    } else {
      addresses.push_back(listen[i].WithPort(static_cast<uint16_t>(ports[i])));
    }
  }
  if (peer_server == nullptr) {
    return absl::UnavailableError(absl::StrCat(
        "cannot serve on ", absl::StrJoin(options.listen, ", "), ": see the lines of gRPC above"));
  }
  PEERCHUNK_RETURN_IF_ERROR(node->Start(addresses));
  health->Start();  // Reads through the node.
  return absl::OkStatus();
}

absl::Status Daemon::Impl::ServeControl() {
  PEERCHUNK_ASSIGN_OR_RETURN(const ControlAddress asked, ControlAddress::Parse(options.control));
  v1::NodeStatus status;
  status.set_version(PEERCHUNK_VERSION);
  for (const std::string& address : addresses) status.add_listen_addresses(address);
  status.set_data_folder(options.data_folder);
  status.set_base(options.base);
  status.set_plaintext(credentials.server == nullptr);
  for (const std::string& line : node->StartupReport()) status.add_startup_report(line);

  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxControlRequestBytes);
  std::string target = asked.target();
  if (asked.is_unix()) {
    PEERCHUNK_ASSIGN_OR_RETURN(control_socket, ControlSocket::Claim(asked));
    target = control_socket->listen_target();
  } else {
    PEERCHUNK_RETURN_IF_ERROR(ListenAddress::Parse(asked.ToString())->CheckFree());
  }
  int port = 0;
  builder.AddListeningPort(target, grpc::InsecureServerCredentials(), &port);
  sandboxes.emplace(SandboxServiceImpl::Options{.node = node.get(),
                                                .mounts = &*mounts,
                                                .metrics = &metrics,
                                                .pause_sync = options.pause_sync,
                                                .status = std::move(status)});
  builder.RegisterService(&*sandboxes);
  reflection.emplace(std::vector<std::string>{v1::SandboxService::service_full_name()});
  builder.RegisterService(&*reflection);
  control_server = builder.BuildAndStart();
  if (control_server == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve the control address ", asked.ToString(),
                     ": the folder must exist and be writable; see the lines of gRPC above"));
  }
  control = asked.is_unix()
                ? asked.ToString()
                : ListenAddress::Parse(asked.ToString())->WithPort(static_cast<uint16_t>(port));
  if (control_socket != nullptr) return control_socket->Publish();
  return absl::OkStatus();
}

absl::Status Daemon::Impl::ServeMetrics() {
  if (!metrics_address) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<MetricsExporter>> started =
      MetricsExporter::Start(&metrics, *metrics_address);
  if (!started.ok()) return Annotate(started.status(), "--metrics-address");
  exporter = *std::move(started);
  return absl::OkStatus();
}

absl::Status Daemon::Impl::RemoveReadyFile() {
  if (options.ready_file.empty()) return absl::OkStatus();
  if (unlink(options.ready_file.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return Annotate(ErrnoStatus(errno, "remove what is there"), "--ready-file " + options.ready_file);
}

Daemon::Daemon(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const DaemonOptions& options) {
  std::unique_ptr<Daemon> daemon(new Daemon(std::make_unique<Impl>(options)));
  PEERCHUNK_RETURN_IF_ERROR(daemon->impl_->Open());
  PEERCHUNK_RETURN_IF_ERROR(daemon->impl_->ServePeers());
  PEERCHUNK_RETURN_IF_ERROR(daemon->impl_->ServeControl());
  PEERCHUNK_RETURN_IF_ERROR(daemon->impl_->ServeMetrics());
  return daemon;
}

Daemon::~Daemon() {
  RemoveReadyFile();
  if (impl_->mounts) impl_->mounts->RemoveAll();  // Before all that waits.
  if (impl_->control_server != nullptr) impl_->control_server->Shutdown(SoonOnWall());
  impl_->control_server = nullptr;
  if (impl_->peer_server != nullptr) impl_->peer_server->Shutdown(SoonOnWall());
  if (impl_->health) impl_->health->Shutdown();
  if (impl_->node != nullptr) impl_->node->Shutdown(Clock::Real().Now() + kShutdownGrace);
}

const std::vector<std::string>& Daemon::addresses() const { return impl_->addresses; }

std::vector<std::string> Daemon::Greeting() const {
  std::vector<std::string> lines;
  const bool plaintext = impl_->credentials.server == nullptr;
  for (size_t i = 0; i < impl_->addresses.size(); ++i) {
    const char* const how = !plaintext                       ? "mTLS"
                            : impl_->listen[i].is_loopback() ? "plaintext, loopback only"
                                                             : "PLAINTEXT";
    lines.push_back(absl::StrCat("listening on ", impl_->addresses[i], " (", how, ")"));
  }
  lines.push_back("control at " + impl_->control);
  if (impl_->exporter != nullptr) {
    lines.push_back(absl::StrCat(
        "metrics at http://", impl_->exporter->address(), "/metrics (",
        impl_->metrics_address->is_loopback() ? "plaintext, loopback only" : "PLAINTEXT", ")"));
  }
  lines.push_back("data in " + impl_->options.data_folder);
  lines.push_back("base " + impl_->base->Describe());
  if (plaintext && impl_->options.insecure_plaintext) {
    // Not push_back: gcc 12 at -O3 takes the temporary for a buffer overrun.
    lines.emplace_back(
        "WARNING: --insecure-plaintext: everyone on the peers' network can read and alter "
        "snapshots on their way");
  }
  for (const std::string& line : impl_->node->StartupReport()) lines.push_back("found: " + line);
  return lines;
}

void Daemon::Drain(absl::Time deadline) {
  impl_->sandboxes->SetDraining();
  impl_->node->Drain(deadline);
}

absl::Status Daemon::WriteReadyFile() {
  const std::string& path = impl_->options.ready_file;
  if (path.empty()) return absl::OkStatus();
  const size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const absl::StatusOr<File> folder = File::Open(parent, O_RDONLY | O_DIRECTORY);
  if (!folder.ok()) return Annotate(folder.status(), "--ready-file " + path);
  const absl::Status written =
      folder->ReplaceFile(path.substr(slash + 1), absl::StrJoin(impl_->addresses, "\n") + "\n");
  impl_->ready_file_written = written.ok();
  return Annotate(written, "--ready-file " + path);
}

void Daemon::RemoveReadyFile() {
  if (impl_->ready_file_written.exchange(false)) impl_->RemoveReadyFile().IgnoreError();
}

void Daemon::Unmount() { impl_->mounts->RemoveAll(); }

std::vector<std::string> Daemon::NotDurable() const {
  std::vector<std::string> lines;
  for (const NodeBuildInfo& build : impl_->node->NotDurable()) {
    if (build.state == BuildState::kUnknown) {  // Nothing of it is in the folder that would stay.
      lines.push_back(absl::StrCat(build.id.ToString(), ": ", build.reason));
      continue;
    }
    lines.push_back(absl::StrCat(build.id.ToString(), " ", AbslView(BuildStateName(build.state)),
                                 " in ", impl_->options.data_folder, "/builds/",
                                 build.id.ToString(),
                                 build.state == BuildState::kDurable && !build.changing
                                     ? ": its newest metadata is not in the base"
                                     : "",
                                 build.reason.empty() ? "" : ": " + build.reason));
  }
  return lines;
}

}  // namespace peerchunk
