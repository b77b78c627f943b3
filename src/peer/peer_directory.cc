#include "peerchunk/peer/peer_directory.h"

#include <utility>

#include "peer/peer_storage_provider.h"
#include "peer/source_set.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// Beyond these, what no provider uses any more is forgotten.
constexpr size_t kMostIdleBuilds = 4096;
constexpr size_t kMostIdlePeers = 1024;

template <typename Map>
void ForgetUnused(Map& map, size_t most) {
  if (map.size() < most) return;
  for (auto it = map.begin(); it != map.end();) {
    const auto entry = it++;
    if (entry->second.use_count() == 1) map.erase(entry);
  }
}

// splitmix64: neighbouring seeds give unrelated numbers.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

SourceBytes CountedBytes(BuildKnowledge& knowledge, FileKind kind) {
  const BuildKnowledge::ByteCounts& bytes = knowledge.bytes(kind);
  return {.peer = bytes.peer.load(std::memory_order_relaxed),
          .base = bytes.base.load(std::memory_order_relaxed),
          .wasted = bytes.wasted.load(std::memory_order_relaxed)};
}

}  // namespace

std::shared_ptr<PeerState> PeerDirectory::Impl::PeerAt(const PeerAddress& address) {
  const MutexLock lock(mutex);
  ForgetUnused(peers, kMostIdlePeers);
  std::shared_ptr<PeerState>& peer = peers[address];
  if (peer == nullptr) peer = std::make_shared<PeerState>(options.budgets, counters);
  return peer;
}

std::shared_ptr<BuildKnowledge> PeerDirectory::Impl::KnowledgeOf(const BuildId& build) {
  const MutexLock lock(mutex);
  ForgetUnused(builds, kMostIdleBuilds);
  std::shared_ptr<BuildKnowledge>& knowledge = builds[build];
  if (knowledge == nullptr) knowledge = std::make_shared<BuildKnowledge>(build, options.budgets);
  return knowledge;
}

std::shared_ptr<BuildKnowledge> PeerDirectory::Impl::FindKnowledge(const BuildId& build) const {
  const MutexLock lock(mutex);
  const auto found = builds.find(build);
  return found == builds.end() ? nullptr : found->second;
}

uint64_t PeerDirectory::Impl::NextSeed() {
  return Mix(options.seed ^ Mix(reads.fetch_add(1, std::memory_order_relaxed)));
}

void PeerDirectory::Impl::HedgeBegins() {
  const MutexLock lock(hedge_mutex);
  ++running_hedges;
}

void PeerDirectory::Impl::HedgeEnds() {
  const MutexLock lock(hedge_mutex);
  if (--running_hedges == 0) hedges_ended.NotifyAll();
}

void PeerDirectory::Impl::WaitForHedges() {
  const MutexLock lock(hedge_mutex);
  while (running_hedges > 0) {
    options.clock->WaitUntil(hedges_ended, hedge_mutex, absl::InfiniteFuture());
  }
}

absl::StatusOr<std::shared_ptr<ChunkServiceClient>> PeerLink::Client(
    ChunkServiceConnector& connector, PeerLane lane) {
  const auto index = static_cast<size_t>(lane);
  {
    const MutexLock lock(mutex_);
    if (clients_[index] != nullptr) return clients_[index];
  }
  // Not under the lock, though it does not block: two readers may both connect, one client stays.
  PEERCHUNK_ASSIGN_OR_RETURN(std::shared_ptr<ChunkServiceClient> client,
                             connector.Connect(address_, lane));
  const MutexLock lock(mutex_);
  if (clients_[index] == nullptr) clients_[index] = std::move(client);
  return clients_[index];
}

PeerDirectory::PeerDirectory(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
PeerDirectory::~PeerDirectory() { impl_->WaitForHedges(); }

absl::StatusOr<std::unique_ptr<PeerDirectory>> PeerDirectory::Create(Options options) {
  if (options.metrics == nullptr || options.clock == nullptr || options.connector == nullptr) {
    return absl::InvalidArgumentError("a peer directory needs a clock, metrics and a connector");
  }
  return std::unique_ptr<PeerDirectory>(
      new PeerDirectory(std::make_shared<Impl>(std::move(options))));
}

absl::StatusOr<std::shared_ptr<StorageProvider>> PeerDirectory::OpenBuild(
    const BuildId& build, const std::vector<std::string>& addresses,
    std::shared_ptr<StorageProvider> base) {
  if (build.is_nil()) return absl::InvalidArgumentError("the nil build id names no build");
  std::vector<PeerAddress> allowed;
  for (const std::string& text : addresses) {
    PEERCHUNK_ASSIGN_OR_RETURN(PeerAddress address, impl_->options.policy.Check(text));
    bool repeated = false;
    for (const PeerAddress& other : allowed) repeated = repeated || other == address;
    if (!repeated) allowed.push_back(std::move(address));
  }
  auto sources = std::make_shared<SourceSet>();
  sources->directory = impl_;
  sources->knowledge = impl_->KnowledgeOf(build);
  sources->base = std::move(base);
  for (PeerAddress& address : allowed) {
    std::shared_ptr<PeerState> state = impl_->PeerAt(address);
    PeerStanding* const standing = sources->knowledge->StandingOf(address.ToString());
    sources->peers.push_back(
        std::make_unique<PeerLink>(std::move(address), std::move(state), standing));
  }
  return std::make_shared<PeerStorageProvider>(std::move(sources));
}

SourceBytes PeerDirectory::BytesOf(const BuildFileId& file) const {
  const std::shared_ptr<BuildKnowledge> knowledge = impl_->FindKnowledge(file.build);
  return knowledge == nullptr ? SourceBytes{} : CountedBytes(*knowledge, file.kind);
}

std::vector<KnownFile> PeerDirectory::FilesOf(const BuildId& build) const {
  const std::shared_ptr<BuildKnowledge> knowledge = impl_->FindKnowledge(build);
  std::vector<KnownFile> files;
  if (knowledge == nullptr) return files;
  for (const FileKind kind : kAllFileKinds) {
    KnownFile file{.kind = kind, .bytes = CountedBytes(*knowledge, kind)};
    if (const auto declared = knowledge->Declared(kind)) {
      file.size = declared->size;
      file.crc32c = declared->crc32c;
    }
    if (file.size || file.bytes.peer + file.bytes.base + file.bytes.wasted > 0) {
      files.push_back(file);
    }
  }
  return files;
}

bool PeerDirectory::KnownDurable(const BuildId& build) const {
  const std::shared_ptr<BuildKnowledge> knowledge = impl_->FindKnowledge(build);
  return knowledge != nullptr && knowledge->durable();
}

}  // namespace peerchunk
