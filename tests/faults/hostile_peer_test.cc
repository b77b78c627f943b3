// Peers that lie, that say nothing, and networks that are slow.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>

#include "tests/faults/fault_fixture.h"
#include "tests/faults/scripted_peer.h"
#include "tests/support/black_hole.h"
#include "tests/support/fault_proxy.h"

namespace peerchunk::test {
namespace {

using Then = ScriptedPeer::Then;

// Over one transport: it is the network that takes its time.
class SlowNetworkTest : public FaultsTest {};

class HostilePeerTest : public FaultsTest, public testing::WithParamInterface<Transport> {
 protected:
  HostilePeerTest() : FaultsTest(GetParam()) {}
};

INSTANTIATE_TEST_SUITE_P(Transports, HostilePeerTest,
                         testing::Values(Transport::kHttp2, Transport::kGrpc),
                         [](const auto& info) { return NameOf(info.param); });

TEST_P(HostilePeerTest, OneWrongByteIsNeverSeenAndItsPeerIsQuarantined) {
  const uint64_t wrong = FileSize() / 2;
  ScriptedPeer peer(Build(), [&](v1::GetBuildFileResponse& message) {
    v1::Extent& extent = *message.mutable_extent();
    if (extent.offset() <= wrong && wrong - extent.offset() < extent.data().size()) {
      (*extent.mutable_data())[wrong - extent.offset()] ^= 1;
    }
    return Then::kSend;
  });
  const FaultReader reader(Build(), {peer.address()}, ReaderOptions(PatientBudgets()));
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "wrong_byte");
  EXPECT_EQ(reader.Quarantines("bad_bytes"), 1u);
  EXPECT_EQ(reader.Fallbacks("bad_bytes"), 1u);
  // The message with the wrong byte is all that was for nothing.
  EXPECT_EQ(outcome.bytes.peer, wrong / kMiB * kMiB);
  EXPECT_EQ(outcome.bytes.wasted, kMiB);
  EXPECT_EQ(reader.Read().bytes.peer, 0u);
}

TEST_P(HostilePeerTest, WrongByteWithARightChecksumFailsTheReadThatSawItAndIsRememberedAfter) {
  ScriptedPeer peer(Build(), [&](v1::GetBuildFileResponse& message) {
    v1::Extent& extent = *message.mutable_extent();
    if (extent.offset() == 3 * kMiB) {
      (*extent.mutable_data())[7] ^= 1;
      extent.set_crc32c(Crc32c(extent.data()));
    }
    return Then::kSend;
  });
  const FaultReader reader(Build(), {peer.address()}, ReaderOptions(PatientBudgets()));
  // A liar that can count: only the whole file's checksum, of the head, convicts it.
  const ReadOutcome outcome = reader.Read();
  EXPECT_TRUE(absl::IsDataLoss(outcome.status)) << outcome.status;
  EXPECT_EQ(reader.Quarantines("bad_bytes"), 1u);
  const ReadOutcome next = reader.Read();
  ExpectWhole(next, "after_forged_byte");
  EXPECT_EQ(next.bytes.peer, 0u);
}

TEST_P(HostilePeerTest, HalfAndACleanEndIsNoEndOfTheFile) {
  ScriptedPeer peer(Build(), [&](v1::GetBuildFileResponse& message) {
    return message.extent().offset() >= FileSize() / 2 ? Then::kEndWithOk : Then::kSend;
  });
  const FaultReader reader(Build(), {peer.address()}, ReaderOptions(PatientBudgets()));
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "half_then_ok");
  EXPECT_EQ(reader.Quarantines("cut_short"), 1u);
  EXPECT_GE(outcome.bytes.peer, FileSize() / 2);
  EXPECT_EQ(outcome.bytes.wasted, 0u);
}

TEST_P(HostilePeerTest, PeerThatGivesBytesAndFallsSilentIsLeftByTheStallBudget) {
  ScriptedPeer peer(Build(), [&](v1::GetBuildFileResponse& message) {
    return message.extent().offset() >= FileSize() / 2 ? Then::kFall : Then::kSend;
  });
  const FaultReader reader(Build(), {peer.address()}, ReaderOptions(ShortBudgets()));
  ExpectWhole(reader.Read(), "falls_silent");
  EXPECT_EQ(reader.Fallbacks("stall"), 1u);
}

TEST_P(HostilePeerTest, ListenerThatSaysNothingCostsTheHedgeDelay) {
  const auto source = StartSource();
  FaultProxy mute(source->address());
  mute.HoldAfter(0);
  const FaultReader reader(Build(), {mute.address()}, ReaderOptions(PatientBudgets()));
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "mute_listener");
  EXPECT_EQ(outcome.bytes.peer, 0u);
  EXPECT_EQ(reader.Hedges("won"), 1u);
}

TEST_P(HostilePeerTest, ListenerThatSaysNothingCostsTheDialBudgetWithoutHedges) {
  const auto source = StartSource();
  FaultProxy mute(source->address());
  mute.HoldAfter(0);
  FaultReader::Options options = ReaderOptions(ShortBudgets());
  options.hedges = false;
  const FaultReader reader(Build(), {mute.address()}, options);
  ExpectWhole(reader.Read(), "mute_listener_without_hedges");
  EXPECT_EQ(reader.Fallbacks("dial_timeout"), 1u);
}

TEST_P(HostilePeerTest, BlackHoleCostsTheHedgeDelay) {
  const BlackHole hole;
  const FaultReader reader(Build(), {hole.address()}, ReaderOptions(PatientBudgets()));
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "black_hole");
  EXPECT_EQ(outcome.bytes.peer, 0u);
  EXPECT_EQ(reader.Hedges("won"), 1u);
}

TEST_P(HostilePeerTest, BlackHoleCostsTheDialBudgetWithoutHedges) {
  const BlackHole hole;
  FaultReader::Options options = ReaderOptions(ShortBudgets());
  options.hedges = false;
  const FaultReader reader(Build(), {hole.address()}, options);
  ExpectWhole(reader.Read(), "black_hole_without_hedges");
  EXPECT_EQ(reader.Fallbacks("dial_timeout"), 1u);
  EXPECT_EQ(reader.Fallbacks("first_byte_timeout"), 0u);
}

TEST_P(HostilePeerTest, BlackHoleBeforeALivingSourceCostsNoByteOfTheBase) {
  const auto source = StartSource();
  const BlackHole hole;
  FaultReader::Options options = ReaderOptions(ShortBudgets());
  options.hedges = false;
  const FaultReader reader(Build(), {hole.address(), source->address()}, options);
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "black_hole_then_source");
  EXPECT_EQ(outcome.bytes.base, 0u);
}

TEST_F(SlowNetworkTest, LatencyOf200MsIsNoFault) {
  const auto source = StartSource();
  FaultProxy proxy(source->address(), {.delay = absl::Milliseconds(100)});
  FaultReader::Options options = ReaderOptions(PatientBudgets());
  options.hedges = false;
  const FaultReader reader(Build(), {proxy.address()}, options);
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "latency_200ms");
  EXPECT_EQ(outcome.bytes.peer, FileSize());
  EXPECT_EQ(reader.Fallbacks(), 0u);
}

// Each read of a page waits 200 ms, and the estimate learns it: hedges go out at first, within
// their share, and the source is still used.
TEST_F(SlowNetworkTest, LatencyOf200MsIsLearned) {
  const auto source = StartSource();
  FaultProxy proxy(source->address(), {.delay = absl::Milliseconds(100)});
  PeerBudgets budgets = PatientBudgets();
  const FaultReader reader(Build(), {proxy.address()}, ReaderOptions(budgets));
  const auto object = reader.Open();
  std::string page(4096, 'x');
  constexpr uint64_t kReads = 20;
  for (uint64_t i = 0; i < kReads; ++i) {
    const uint64_t offset = i * kMiB;
    ASSERT_OK(object->ReadAt(offset, absl::MakeSpan(page), {.deadline = FaultReader::Deadline()}));
    EXPECT_EQ(page, Build().files.at(FileKind::kMemfile).substr(offset, page.size()));
  }
  Report("latency_200ms_pages_from_peer", static_cast<double>(reader.Bytes().peer) / 4096);
  Report("latency_200ms_pages_from_base", static_cast<double>(reader.Bytes().base) / 4096);
  EXPECT_LE(reader.Hedges("sent"), budgets.hedge_burst + budgets.hedge_share * kReads);
}

TEST_F(SlowNetworkTest, LossThatOnlyTimersNoticeIsNoFault) {
  const auto source = StartSource();
  // One segment of 16 KiB in a thousand: with 1 % of them, the file would take too long for a test.
  FaultProxy proxy(source->address(),
                   {.late_share = 0.001, .late_by = absl::Milliseconds(200), .seed = 7});
  FaultReader::Options options = ReaderOptions(PatientBudgets());
  options.hedges = false;
  const FaultReader reader(Build(), {proxy.address()}, options);
  const ReadOutcome outcome = reader.Read();
  ExpectWhole(outcome, "late_segments");
  EXPECT_EQ(outcome.bytes.peer, FileSize());
  EXPECT_EQ(reader.Fallbacks(), 0u);
}

TEST_P(HostilePeerTest, BaseThatIsSlowAtTheSameTimeIsReadInTheEnd) {
  ScriptedPeer peer(Build(), [&](v1::GetBuildFileResponse& message) {
    return message.extent().offset() >= FileSize() / 2 ? Then::kFall : Then::kSend;
  });
  FaultReader::Options options = ReaderOptions(ShortBudgets());
  options.base_bytes_per_second = 32 * kMiB;
  const FaultReader reader(Build(), {peer.address()}, options);
  ExpectWhole(reader.Read(), "falls_silent_slow_base");
  EXPECT_EQ(reader.Fallbacks("stall"), 1u);
}

TEST_P(HostilePeerTest, CallersDeadlineAndCancellationReachAStreamThatIsSilent) {
  std::atomic<int> streams = 0;
  ScriptedPeer peer(Build(), [&](v1::GetBuildFileResponse&) {
    ++streams;
    return Then::kFall;
  });
  const FaultReader reader(Build(), {peer.address()}, ReaderOptions(PatientBudgets()));
  const absl::Duration patience = absl::Milliseconds(200);
  const ReadOutcome late = reader.Read(
      {}, {.deadline = Clock::Real().Now() + patience, .sources = SourcePolicy::kPeerOnly});
  EXPECT_FALSE(late.status.ok());
  Report("deadline_200ms_ms", absl::ToDoubleMilliseconds(late.took));

  std::stop_source stop;
  const int before = streams;
  std::thread canceller([&] {
    while (streams == before) std::this_thread::yield();
    stop.request_stop();
  });
  ReadOptions options{.sources = SourcePolicy::kPeerOnly};
  options.cancellation = stop.get_token();
  const ReadOutcome cancelled = reader.Read({}, options);
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(cancelled.status)) << cancelled.status;
  Report("cancellation_ms", absl::ToDoubleMilliseconds(cancelled.took));
  // The peer's end of both calls ends too, or its destructor would hang.
}

}  // namespace
}  // namespace peerchunk::test
