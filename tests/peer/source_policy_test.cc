#include "peer/source_policy.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

using Kind = Choice::Kind;

const absl::Time kNow = absl::FromUnixSeconds(1000);

// --- What happened at the peer (the left column of the table) ------------------------------------

struct EventRow {
  PeerEvent event;
  std::string flags;  // b: breaker, q: quarantine, d: deny, p: pause, D: durable, h: hint,
                      // H: hint for all, N: not found, e: error log.
};

TEST(ReactToTest, EveryRowOfTheTableHolds) {
  const std::vector<EventRow> rows = {
      {PeerEvent::kNotAvailable, "p"},    {PeerEvent::kAbsent, "N"},
      {PeerEvent::kUseStorage, "D"},      {PeerEvent::kNotYet, "h"},
      {PeerEvent::kStoppedShort, ""},     {PeerEvent::kUnreachable, "b"},
      {PeerEvent::kDialTimeout, "b"},     {PeerEvent::kFirstByteTimeout, "b"},
      {PeerEvent::kStalled, "b"},         {PeerEvent::kOutOfBudget, ""},
      {PeerEvent::kOverloaded, "hH"},     {PeerEvent::kBadBytes, "qe"},
      {PeerEvent::kCutShort, "qe"},       {PeerEvent::kDataLoss, "qe"},
      {PeerEvent::kBadRangeAnswer, "qe"}, {PeerEvent::kContradiction, "qe"},
      {PeerEvent::kDenied, "de"},         {PeerEvent::kLostToBase, ""},
      {PeerEvent::kPassedOver, ""},
  };
  ASSERT_EQ(rows.size(), kPeerEventCount);
  std::set<std::string> reasons;
  for (const EventRow& row : rows) {
    const PeerReaction reaction = ReactTo(row.event);
    std::string flags;
    if (reaction.breaker_failure) flags += 'b';
    if (reaction.quarantine) flags += 'q';
    if (reaction.deny) flags += 'd';
    if (reaction.pause) flags += 'p';
    if (reaction.durable) flags += 'D';
    if (reaction.wait_for_hint) flags += 'h';
    if (reaction.hold_off) flags += 'H';
    if (reaction.not_found) flags += 'N';
    if (reaction.error_log) flags += 'e';
    EXPECT_EQ(flags, row.flags) << reaction.reason;
    EXPECT_TRUE(reasons.emplace(reaction.reason).second) << "a reason of its own";
  }
}

TEST(ClassifyStatusTest, EveryStatusHasARow) {
  struct Row {
    absl::StatusCode code;
    PeerEvent valid_range;
    PeerEvent unknown_range;
  };
  const PeerEvent gone = PeerEvent::kUnreachable;
  for (const Row& row : std::vector<Row>{
           {absl::StatusCode::kCancelled, gone, gone},
           {absl::StatusCode::kUnknown, gone, gone},
           {absl::StatusCode::kInvalidArgument, PeerEvent::kBadRangeAnswer, gone},
           {absl::StatusCode::kDeadlineExceeded, gone, gone},
           {absl::StatusCode::kNotFound, gone, gone},
           {absl::StatusCode::kAlreadyExists, gone, gone},
           {absl::StatusCode::kPermissionDenied, PeerEvent::kDenied, PeerEvent::kDenied},
           {absl::StatusCode::kResourceExhausted, PeerEvent::kOverloaded, PeerEvent::kOverloaded},
           {absl::StatusCode::kFailedPrecondition, gone, gone},
           {absl::StatusCode::kAborted, gone, gone},
           {absl::StatusCode::kOutOfRange, PeerEvent::kBadRangeAnswer, gone},
           {absl::StatusCode::kUnimplemented, gone, gone},
           {absl::StatusCode::kInternal, gone, gone},
           {absl::StatusCode::kUnavailable, gone, gone},
           {absl::StatusCode::kDataLoss, PeerEvent::kDataLoss, PeerEvent::kDataLoss},
           {absl::StatusCode::kUnauthenticated, PeerEvent::kDenied, PeerEvent::kDenied},
       }) {
    EXPECT_EQ(ClassifyStatus(absl::Status(row.code, ""), true), row.valid_range)
        << absl::StatusCodeToString(row.code);
    EXPECT_EQ(ClassifyStatus(absl::Status(row.code, ""), false), row.unknown_range)
        << absl::StatusCodeToString(row.code);
  }
}

// --- Whether the base may be a source ------------------------------------------------------------

TEST(TrustInBaseTest, BeforeDurableOnlyWhatCanBeCompared) {
  EXPECT_EQ(TrustInBase({.durable = true, .declared = true}), BaseTrust::kTrusted);
  EXPECT_EQ(TrustInBase({.in_base = true, .declared = true}), BaseTrust::kTrusted);
  EXPECT_EQ(TrustInBase({.declared = true}), BaseTrust::kIfEqual);
  // The peer that declared it has lost the build since: what it declared still binds.
  EXPECT_EQ(TrustInBase({.declared = true, .no_peer_has_it = true}), BaseTrust::kIfEqual);
  EXPECT_EQ(TrustInBase({.no_peer_has_it = true}), BaseTrust::kTrusted);
  // No peer has declared the file, whatever it said of the build: the sign of completeness decides.
  EXPECT_EQ(TrustInBase({}), BaseTrust::kIfComplete);
}

// --- Where the read goes next (the right column) -------------------------------------------------

PeerView Healthy() { return {}; }
PeerView Tried(PeerAnswer answer) { return {.tried = true, .answer = answer}; }
PeerView Demoted() { return {.demoted = true}; }

struct ChoiceRow {
  std::string name;
  SelectionView view;
  Kind kind;
  size_t peer = 0;
};

void CheckRows(const std::vector<ChoiceRow>& rows) {
  for (const ChoiceRow& row : rows) {
    const Choice choice = ChooseNext(row.view, kNow);
    EXPECT_EQ(choice.kind, row.kind) << row.name;
    if (row.kind == Kind::kPeer) {
      EXPECT_EQ(choice.peer, row.peer) << row.name;
    }
  }
}

TEST(ChooseNextTest, PeersComeFirstAndDemotedOnesLast) {
  CheckRows({
      {"no peers", {}, Kind::kBase},
      {"one peer", {.peers = {Healthy()}}, Kind::kPeer, 0},
      {"second when the first was tried",
       {.peers = {Tried(PeerAnswer::kUnreachable), Healthy()}},
       Kind::kPeer,
       1},
      {"base before a demoted peer", {.peers = {Demoted()}}, Kind::kBase},
      {"healthy before base", {.peers = {Demoted(), Healthy()}}, Kind::kPeer, 1},
      {"demoted when the base has nothing",
       {.base = BaseOutcome::kMissing, .peers = {Demoted()}},
       Kind::kPeer,
       0},
      {"demoted when the base failed",
       {.base = BaseOutcome::kFailed, .peers = {Demoted()}},
       Kind::kPeer,
       0},
      {"demoted once in a round",
       {.base = BaseOutcome::kMissing,
        .peers = {{.demoted = true, .tried = true, .answer = PeerAnswer::kUnreachable}}},
       Kind::kNextRound},
  });
}

TEST(ChooseNextTest, DurableBuildsComeFromTheBaseAndThenFromPeers) {
  CheckRows({
      {"base first", {.base_first = true, .peers = {Healthy()}}, Kind::kBase},
      {"peer when the base has nothing",
       {.base_first = true, .base = BaseOutcome::kMissing, .peers = {Healthy()}},
       Kind::kPeer,
       0},
      {"peer when the base fails",
       {.base_first = true, .base = BaseOutcome::kFailed, .peers = {Healthy()}},
       Kind::kPeer,
       0},
      {"again when both failed",
       {.base_first = true,
        .base = BaseOutcome::kFailed,
        .peers = {Tried(PeerAnswer::kUnreachable)}},
       Kind::kNextRound},
      {"the base's error when no peer can help",
       {.base_first = true, .base = BaseOutcome::kFailed, .peers = {Tried(PeerAnswer::kHasNot)}},
       Kind::kBaseError},
  });
}

TEST(ChooseNextTest, NotFoundOnlyWhenEveryNamedSourceHasNot) {
  for (const PeerAnswer answer :
       {PeerAnswer::kNone, PeerAnswer::kHas, PeerAnswer::kNotYet, PeerAnswer::kUnreachable}) {
    EXPECT_EQ(ChooseNext({.base = BaseOutcome::kMissing,
                          .peers = {Tried(PeerAnswer::kHasNot), Tried(answer)}},
                         kNow)
                  .kind,
              Kind::kNextRound)
        << static_cast<int>(answer);
  }
  CheckRows({
      {"no peers", {.base = BaseOutcome::kMissing}, Kind::kNotFound},
      {"all have not",
       {.base = BaseOutcome::kMissing,
        .peers = {Tried(PeerAnswer::kHasNot), Tried(PeerAnswer::kHasNot)}},
       Kind::kNotFound},
      {"no peers, base failed", {.base = BaseOutcome::kFailed}, Kind::kBaseError},
  });
}

TEST(ChooseNextTest, FileThatACompleteUploadLacksIsNotWaitedFor) {
  CheckRows({
      {"the peers are asked first",
       {.base = BaseOutcome::kAbsent, .peers = {Demoted()}},
       Kind::kPeer,
       0},
      {"unreachable",
       {.base = BaseOutcome::kAbsent,
        .peers = {Tried(PeerAnswer::kUnreachable), Tried(PeerAnswer::kHasNot)}},
       Kind::kNotFound},
      {"a peer has it",
       {.base = BaseOutcome::kAbsent,
        .peers = {Tried(PeerAnswer::kUnreachable), Tried(PeerAnswer::kHas)}},
       Kind::kNextRound},
      {"a peer will have it",
       {.base = BaseOutcome::kAbsent, .peers = {Tried(PeerAnswer::kNotYet)}},
       Kind::kNextRound},
  });
}

TEST(ChooseNextTest, HintHoldsOnlyItsPeerBack) {
  const PeerView hinted = {.answer = PeerAnswer::kNotYet,
                           .not_before = kNow + absl::Milliseconds(300)};
  EXPECT_EQ(ChooseNext({.peers = {hinted}}, kNow).kind, Kind::kBase);
  const Choice wait = ChooseNext({.base = BaseOutcome::kMissing, .peers = {hinted}}, kNow);
  EXPECT_EQ(wait.kind, Kind::kNextRound);
  EXPECT_EQ(wait.not_before, hinted.not_before);
  const Choice sooner = ChooseNext(
      {.base = BaseOutcome::kMissing, .peers = {hinted, Tried(PeerAnswer::kUnreachable)}}, kNow);
  EXPECT_EQ(sooner.kind, Kind::kNextRound);
  EXPECT_LE(sooner.not_before, kNow);
  EXPECT_EQ(ChooseNext({.peers = {hinted}}, hinted.not_before).kind, Kind::kPeer);
}

TEST(ChooseNextTest, CallerMayWantOneSourceOnly) {
  CheckRows({
      {"peer only", {.sources = SourcePolicy::kPeerOnly, .peers = {Healthy()}}, Kind::kPeer, 0},
      {"peer only, demoted",
       {.sources = SourcePolicy::kPeerOnly, .peers = {Demoted()}},
       Kind::kPeer,
       0},
      {"peer only, failed",
       {.sources = SourcePolicy::kPeerOnly, .peers = {Tried(PeerAnswer::kUnreachable)}},
       Kind::kNextRound},
      {"peer only, has not",
       {.sources = SourcePolicy::kPeerOnly, .peers = {Tried(PeerAnswer::kHasNot)}},
       Kind::kNotFound},
      {"peer only, durable",
       {.sources = SourcePolicy::kPeerOnly, .base_first = true, .peers = {Healthy()}},
       Kind::kPeer,
       0},
      {"base only", {.sources = SourcePolicy::kBaseOnly, .peers = {Healthy()}}, Kind::kBase},
      {"base only, missing",
       {.sources = SourcePolicy::kBaseOnly, .base = BaseOutcome::kMissing, .peers = {Healthy()}},
       Kind::kNotFound},
      {"base only, failed",
       {.sources = SourcePolicy::kBaseOnly, .base = BaseOutcome::kFailed, .peers = {Healthy()}},
       Kind::kBaseError},
  });
}

TEST(ChooseNextTest, EveryRoundEndsForEveryView) {
  // Exhaustive over small views: following the choices never asks a source twice in a round, and
  // ends.
  const PeerAnswer answers[] = {PeerAnswer::kHasNot, PeerAnswer::kUnreachable, PeerAnswer::kHas};
  for (int bits = 0; bits < 1 << 9; ++bits) {
    SelectionView view;
    view.sources = static_cast<SourcePolicy>(bits % 3);
    view.base_first = (bits >> 2 & 1) != 0;
    for (int p = 0; p < 3; ++p) view.peers.push_back({.demoted = (bits >> (4 + p) & 1) != 0});
    const BaseOutcome base = (bits >> 7 & 1) != 0 ? BaseOutcome::kFailed : BaseOutcome::kMissing;
    int steps = 0;
    while (true) {
      const Choice choice = ChooseNext(view, kNow);
      if (choice.kind != Kind::kPeer && choice.kind != Kind::kBase) break;
      ASSERT_LT(++steps, 5) << bits;
      if (choice.kind == Kind::kBase) {
        ASSERT_EQ(view.base, BaseOutcome::kUntried);
        ASSERT_NE(view.sources, SourcePolicy::kPeerOnly);
        view.base = base;
      } else {
        ASSERT_FALSE(view.peers[choice.peer].tried);
        ASSERT_NE(view.sources, SourcePolicy::kBaseOnly);
        view.peers[choice.peer].tried = true;
        view.peers[choice.peer].answer = answers[static_cast<size_t>(bits >> 7) % 3];
      }
    }
    EXPECT_FALSE(HasAlternative(view));
  }
}

TEST(HasReadyPeerTest, OnlyAPeerThatIsNotAskedLastStandsInForASilentOne) {
  const SelectionView none{.peers = {Tried(PeerAnswer::kNone)}};
  EXPECT_FALSE(HasReadyPeer(none, kNow));
  EXPECT_FALSE(HasReadyPeer({.peers = {Tried(PeerAnswer::kNone), Demoted()}}, kNow));
  EXPECT_FALSE(HasReadyPeer({.peers = {{.not_before = kNow + absl::Seconds(1)}}}, kNow));
  EXPECT_FALSE(HasReadyPeer({.sources = SourcePolicy::kBaseOnly, .peers = {{}}}, kNow));
  EXPECT_TRUE(HasReadyPeer({.peers = {Tried(PeerAnswer::kNone), {}}}, kNow));
}

TEST(LeaveAtTest, BaseHasItsShareOfTheWholeRoundHoweverManyPeersAreSilent) {
  const absl::Time limit = kNow + absl::Seconds(10);
  for (const size_t peers : {1, 2, 5}) {
    SelectionView view;
    view.peers.resize(peers);
    absl::Time now = kNow;
    for (PeerView& peer : view.peers) {
      peer.tried = true;
      const absl::Time leave = LeaveAt(view, kNow, now, limit, 0.3);
      EXPECT_GT(leave, now);
      now = leave;
    }
    EXPECT_LE(now, kNow + absl::Seconds(7));
    EXPECT_GE(now, kNow + absl::Milliseconds(6999));
    // One that is asked later still gets nothing of the base's.
    EXPECT_EQ(LeaveAt(view, kNow, kNow + absl::Seconds(8), limit, 0.3), kNow + absl::Seconds(8));
    // Where the base is out, peers share all there is, and the last one has no limit of this kind.
    view.base = BaseOutcome::kFailed;
    EXPECT_EQ(LeaveAt(view, kNow, kNow, limit, 0.3), absl::InfiniteFuture());
    view.peers[0].tried = false;
    EXPECT_EQ(LeaveAt(view, kNow, kNow, limit, 0.3), kNow + absl::Seconds(5));
  }
}

TEST(HasAlternativeTest, TimeIsKeptForWhoeverIsLeft) {
  EXPECT_FALSE(HasAlternative({.base = BaseOutcome::kFailed}));
  EXPECT_TRUE(HasAlternative({.peers = {Tried(PeerAnswer::kNone)}}));
  EXPECT_TRUE(HasAlternative({.base = BaseOutcome::kFailed, .peers = {Demoted()}}));
  EXPECT_FALSE(
      HasAlternative({.sources = SourcePolicy::kPeerOnly, .peers = {Tried(PeerAnswer::kNone)}}));
  EXPECT_TRUE(HasAlternative(
      {.base = BaseOutcome::kMissing, .peers = {{.not_before = absl::InfiniteFuture()}}}));
}

}  // namespace
}  // namespace peerchunk
