#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "peerchunk/base/executor.h"
#include "tests/peer/peer_fixture.h"
#include "tests/support/storage_conformance.h"

namespace peerchunk::test {
namespace {

// What the peer is while the contract is checked through the decorator. Objects that were not
// seeded the peer does not have, in every state.
enum class PeerIs {
  kServing,
  kAbsent,
  kFailingAtOpen,
  kDyingInTheMiddle,
  kLying,
  kDurable,
  kHedged
};

PeerBudgets Budgets(PeerIs state) {
  PeerBudgets budgets;
  if (state != PeerIs::kHedged) return budgets;
  budgets.hedge_floor = budgets.hedge_ceiling = absl::Milliseconds(1);
  budgets.hedge_share = 1;
  budgets.hedge_burst = 1e6;
  return budgets;
}

class PeerFixture final : public StorageFixture {
 public:
  explicit PeerFixture(PeerIs state)
      : state_(state),
        build_(*BuildId::Parse(kConformanceBuild)),
        world_(Clock::Real(), state == PeerIs::kHedged ? &pool_ : nullptr, Budgets(state)) {
    world_.Node();  // Up, with nothing to serve yet.
    // With a silent source, the sign of completeness is what makes the base a source.
    world_.memory.Seed(std::string(kConformanceBuild) + "/metadata.json", "{}");
    auto opened = world_.directory->OpenBuild(
        build_, {kPeerA},
        std::shared_ptr<StorageProvider>(&world_.memory, [](StorageProvider*) {}));
    EXPECT_OK(opened);
    storage_ = *std::move(opened);
  }

  StorageProvider& storage() override { return *storage_; }

  absl::Status Seed(const std::string& path, std::string_view bytes) override {
    if (state_ != PeerIs::kServing) world_.memory.Seed(path, std::string(bytes));
    const auto file = BuildFileId::FromObjectPath(path);
    if (!file || file->build != build_) return absl::OkStatus();
    SimulatedNode& node = world_.Node();
    PeerFault fault{.file = file->kind};
    switch (state_) {
      case PeerIs::kServing:
        break;
      case PeerIs::kAbsent:
        return absl::OkStatus();
      case PeerIs::kFailingAtOpen:
        fault.error = absl::UnavailableError("connection reset");
        break;
      case PeerIs::kDyingInTheMiddle:
        fault.error = absl::UnavailableError("connection reset");
        fault.after_bytes = bytes.size() / 2;
        fault.heads_too = false;
        break;
      case PeerIs::kLying:
        fault.corrupt = true;
        fault.after_bytes = bytes.size() / 3;
        break;
      case PeerIs::kDurable:
        node.PutFile(*file, std::string(bytes));
        node.SetState(build_, BuildState::kDurable);
        return absl::OkStatus();
      case PeerIs::kHedged:
        fault.stall = true;
        break;
    }
    node.PutFile(*file, std::string(bytes));
    if (state_ != PeerIs::kServing) node.AddFault(fault);
    return absl::OkStatus();
  }

 private:
  const PeerIs state_;
  const BuildId build_;
  ThreadPool pool_{"hedge", 4};
  PeerWorld world_;
  std::shared_ptr<StorageProvider> storage_;
};

StorageConformanceParam Param(std::string name, PeerIs state, StorageCapabilities capabilities) {
  return {std::move(name), [state] { return std::make_unique<PeerFixture>(state); }, capabilities};
}

// What a peer declared of a file stays so: objects are not replaced under a peer that has them.
constexpr StorageCapabilities kImmutable = {
    .read_only = true, .replaces = false, .keeps_metadata = false};

INSTANTIATE_TEST_SUITE_P(Peer, StorageConformanceTest,
                         testing::Values(Param("Serving", PeerIs::kServing, kImmutable),
                                         Param("Absent", PeerIs::kAbsent, {}),
                                         Param("FailingAtOpen", PeerIs::kFailingAtOpen, {}),
                                         Param("DyingInTheMiddle", PeerIs::kDyingInTheMiddle,
                                               kImmutable),
                                         Param("Lying", PeerIs::kLying, kImmutable),
                                         Param("Durable", PeerIs::kDurable, kImmutable),
                                         Param("Hedged", PeerIs::kHedged, {})),
                         StorageConformanceName);

}  // namespace
}  // namespace peerchunk::test
