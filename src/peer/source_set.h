#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "peer/breaker.h"
#include "peer/build_knowledge.h"
#include "peer/first_byte_estimate.h"
#include "peer/hedge_tokens.h"
#include "peer/read_counters.h"
#include "peerchunk/peer/peer_directory.h"

namespace peerchunk {

// What this process knows of one peer whatever the build. Thread-safe; shared by all builds.
struct PeerState {
  PeerState(const PeerBudgets& budgets, const ReadCounters& counters)
      : breaker(budgets, {.open = &counters.breaker_open,
                          .half_open = &counters.breaker_half_open,
                          .closed = &counters.breaker_closed}),
        first_byte(budgets.hedge_floor, budgets.hedge_ceiling) {}

  Breaker breaker;
  FirstByteEstimate first_byte;
};

// The state behind every provider of one directory. Its lock is taken when a provider is opened and
// for look-ups by people, never on a read.
struct PeerDirectory::Impl {
  explicit Impl(Options the_options)
      : options(std::move(the_options)),
        counters(*options.metrics),
        tokens(options.budgets.hedge_share, options.budgets.hedge_burst) {}

  std::shared_ptr<PeerState> PeerAt(const PeerAddress& address);
  std::shared_ptr<BuildKnowledge> KnowledgeOf(const BuildId& build);
  std::shared_ptr<BuildKnowledge> FindKnowledge(const BuildId& build) const;
  // Seed of one read's jitter.
  uint64_t NextSeed();

  // Hedges running on the executor: the directory waits for them before it goes.
  void HedgeBegins();
  void HedgeEnds();
  void WaitForHedges();

  const Options options;
  const ReadCounters counters;
  HedgeTokens tokens;
  std::atomic<uint64_t> reads{0};

  mutable Mutex mutex;
  CondVar hedges_ended;
  size_t running_hedges PEERCHUNK_GUARDED_BY(hedge_mutex) = 0;
  Mutex hedge_mutex;
  std::map<PeerAddress, std::shared_ptr<PeerState>> peers PEERCHUNK_GUARDED_BY(mutex);
  absl::flat_hash_map<BuildId, std::shared_ptr<BuildKnowledge>> builds PEERCHUNK_GUARDED_BY(mutex);
};

// One peer as the readers of one provider reach it. Thread-safe.
class PeerLink {
 public:
  PeerLink(PeerAddress address, std::shared_ptr<PeerState> state, PeerStanding* standing)
      : address_(std::move(address)), state_(std::move(state)), standing_(standing) {}

  const PeerAddress& address() const { return address_; }
  PeerState& state() const { return *state_; }
  PeerStanding* standing() const { return standing_; }

  // The client of a lane, made when first used.
  absl::StatusOr<std::shared_ptr<ChunkServiceClient>> Client(ChunkServiceConnector& connector,
                                                             PeerLane lane);

 private:
  const PeerAddress address_;
  const std::shared_ptr<PeerState> state_;
  PeerStanding* const standing_;
  Mutex mutex_;
  std::array<std::shared_ptr<ChunkServiceClient>, 2> clients_ PEERCHUNK_GUARDED_BY(mutex_);
};

// The sources of one build as one provider reads them: peers in order of preference, then the base.
// Immutable but for what its members guard; owned by the provider and by the hedges under way.
struct SourceSet {
  std::shared_ptr<PeerDirectory::Impl> directory;
  std::shared_ptr<BuildKnowledge> knowledge;
  std::vector<std::unique_ptr<PeerLink>> peers;
  std::shared_ptr<StorageProvider> base;

  const PeerBudgets& budgets() const { return directory->options.budgets; }
  Clock& clock() const { return *directory->options.clock; }
  const ReadCounters& counters() const { return directory->counters; }
  BuildFileId FileId(FileKind kind) const { return {knowledge->build(), kind}; }
};

}  // namespace peerchunk
