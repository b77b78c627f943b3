// The dial has a budget of its own, and over the real network too it is the one that ends a dial
// that hangs. All other budgets are out of reach here.
#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "base/logging.h"
#include "peerchunk/peer/peer_directory.h"
#include "tests/support/black_hole.h"
#include "tests/support/fault_proxy.h"
#include "tests/support/memory_storage.h"
#include "tests/support/status_asserts.h"
#include "tests/support/transport.h"

namespace peerchunk::test {
namespace {

const BuildId kBuild = *BuildId::Parse("aaaaaaaa-0000-4000-8000-000000000001");

// Time that this process lived through, in steps: no step passes while it is stopped.
class LiveTime {
 public:
  LiveTime()
      : thread_([this] {
          while (!over_) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
            ++steps_;
          }
        }) {}
  ~LiveTime() {
    over_ = true;
    thread_.join();
  }
  int steps() const { return steps_; }

 private:
  std::atomic<bool> over_ = false;
  std::atomic<int> steps_ = 0;
  std::thread thread_;
};

class DialBudgetTest : public testing::TestWithParam<Transport> {
 protected:
  DialBudgetTest() {
    Logger("peer").set_level(spdlog::level::off);
    for (const auto& [kind, bytes] :
         {std::pair(FileKind::kMemfile, "bytes"), std::pair(FileKind::kMetadata, "{}")}) {
      base_->Seed(BuildFileId{kBuild, kind}.ObjectPath(), bytes);
    }
    PeerBudgets budgets;
    budgets.dial = absl::Milliseconds(50);
    budgets.first_byte = budgets.stall = absl::Hours(1);
    directory_ = *PeerDirectory::Create(
        {.policy = *AddressPolicy::Create(
             {.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}}),
         .connector = ConnectorOver(GetParam()),
         .budgets = budgets,
         .metrics = &metrics_});
  }
  ~DialBudgetTest() override { Logger("peer").set_level(spdlog::level::info); }

  void ExpectReadEndsWithTheDial(const std::string& address) {
    const auto provider = *directory_->OpenBuild(kBuild, {address}, base_);
    const auto object =
        *provider->OpenSeekable(BuildFileId{kBuild, FileKind::kMemfile}.ObjectPath());
    std::string bytes(5, 'x');
    const LiveTime live;
    ASSERT_OK(object->ReadAt(0, absl::MakeSpan(bytes),
                             {.deadline = Clock::Real().Now() + absl::Minutes(5)}));
    // gRPC itself would give the dial up after 20 s.
    EXPECT_LT(live.steps(), 1000);
    EXPECT_EQ(bytes, "bytes");
    EXPECT_EQ(metrics_.CounterValue("peerchunk_fallbacks_total", {{"reason", "dial_timeout"}}), 1u);
  }

  Metrics metrics_;
  std::shared_ptr<MemoryStorageProvider> base_ = std::make_shared<MemoryStorageProvider>();
  std::unique_ptr<PeerDirectory> directory_;
};

INSTANTIATE_TEST_SUITE_P(Transports, DialBudgetTest,
                         testing::Values(Transport::kHttp2, Transport::kGrpc),
                         [](const auto& info) { return NameOf(info.param); });

TEST_P(DialBudgetTest, AddressThatAnswersNothing) {
  const BlackHole hole;
  ExpectReadEndsWithTheDial(hole.address());
}

TEST_P(DialBudgetTest, ListenerThatTakesTheConnectionAndSaysNothing) {
  const BlackHole hole;
  FaultProxy silent(hole.address());
  ExpectReadEndsWithTheDial(silent.address());
}

}  // namespace
}  // namespace peerchunk::test
