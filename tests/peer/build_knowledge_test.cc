#include "peer/build_knowledge.h"

#include <string>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

constexpr FileKind kFile = FileKind::kMemfile;

FileHead Declares(uint64_t size, std::optional<uint32_t> crc = 7, uint64_t version = 0) {
  return {.availability = Availability::kAvailable,
          .total_size = size,
          .file_crc32c = crc,
          .version = version};
}
BuildStatus Status(BuildState state, uint64_t incarnation, uint64_t sequence) {
  return {.state = state, .incarnation = incarnation, .sequence = sequence};
}

class BuildKnowledgeTest : public testing::Test {
 protected:
  bool Observe(PeerStanding* peer, const FileHead& head, FileKind kind = kFile) {
    return knowledge_.ObserveHead(peer, kind, head);
  }
  void Apply(PeerStanding* peer, PeerEvent event, absl::Duration hint = absl::ZeroDuration()) {
    knowledge_.Apply(peer, ReactTo(event), hint, now_);
  }
  BuildKnowledge::View View(PeerStanding* peer) { return knowledge_.ViewOf(peer, now_); }

  const PeerBudgets budgets_{};
  BuildKnowledge knowledge_{*BuildId::Parse("aaaaaaaa-0000-4000-8000-000000000001"), budgets_};
  PeerStanding* const a_ = knowledge_.StandingOf("10.0.0.1:1");
  PeerStanding* const b_ = knowledge_.StandingOf("10.0.0.2:1");
  absl::Time now_ = absl::FromUnixSeconds(1000);
};

TEST_F(BuildKnowledgeTest, StandingIsOnePerAddress) {
  EXPECT_EQ(knowledge_.StandingOf("10.0.0.1:1"), a_);
  EXPECT_NE(a_, b_);
}

TEST_F(BuildKnowledgeTest, OlderStateOfOneIncarnationIsIgnored) {
  knowledge_.ObserveStatus(a_, Status(BuildState::kUploading, 1, 5));
  knowledge_.ObserveStatus(a_, Status(BuildState::kLocal, 1, 4));
  EXPECT_EQ(a_->status.state, BuildState::kUploading);
  knowledge_.ObserveStatus(a_, Status(BuildState::kFailed, 1, 6));
  EXPECT_EQ(a_->status.state, BuildState::kFailed);
  // A node that started again counts from the beginning.
  knowledge_.ObserveStatus(a_, Status(BuildState::kLocal, 2, 0));
  EXPECT_EQ(a_->status.state, BuildState::kLocal);
  // "Nobody said" is no state.
  knowledge_.ObserveStatus(a_, Status(BuildState::kUnknown, 2, 9));
  EXPECT_EQ(a_->status.state, BuildState::kLocal);
  EXPECT_FALSE(knowledge_.durable());
}

TEST_F(BuildKnowledgeTest, DurableIsFinalWhateverTheOrder) {
  knowledge_.ObserveStatus(a_, Status(BuildState::kUploading, 1, 9));
  knowledge_.ObserveStatus(a_, Status(BuildState::kDurable, 1, 3));  // Overtaken on the way.
  EXPECT_TRUE(knowledge_.durable());
  knowledge_.ObserveStatus(b_, Status(BuildState::kUploading, 8, 99));
  EXPECT_TRUE(knowledge_.durable());
}

TEST_F(BuildKnowledgeTest, UseStorageMakesTheBuildDurable) {
  Apply(a_, PeerEvent::kUseStorage);
  EXPECT_TRUE(knowledge_.durable());
}

TEST_F(BuildKnowledgeTest, DeclarationMustStayTheSameInEveryAnswer) {
  EXPECT_TRUE(Observe(a_, Declares(100)));
  EXPECT_TRUE(Observe(a_, Declares(100)));
  EXPECT_TRUE(Observe(b_, Declares(100, std::nullopt)));
  EXPECT_FALSE(Observe(a_, Declares(101)));
  EXPECT_FALSE(Observe(b_, Declares(100, 8)));
  for (PeerStanding* const peer : {a_, b_}) {
    EXPECT_FALSE(Observe(peer, {.availability = Availability::kAbsent}));
  }
  EXPECT_TRUE(Observe(b_, {.availability = Availability::kAbsent}, FileKind::kSnapfile));
  EXPECT_EQ(knowledge_.Declared(kFile)->size, 100u);
  EXPECT_TRUE(Observe(a_, Declares(5), FileKind::kRootfs)) << "each file has its own";
}

TEST_F(BuildKnowledgeTest, ChecksumMayBeLearnedLater) {
  EXPECT_TRUE(Observe(a_, Declares(100, std::nullopt)));
  EXPECT_TRUE(Observe(b_, Declares(100, 7)));
  EXPECT_EQ(knowledge_.Declared(kFile)->crc32c, 7u);
  EXPECT_FALSE(Observe(a_, Declares(100, 8)));
}

TEST_F(BuildKnowledgeTest, DeclarationOfALiarDoesNotBindOthers) {
  EXPECT_TRUE(Observe(a_, Declares(100)));
  Apply(a_, PeerEvent::kBadBytes);
  EXPECT_FALSE(knowledge_.Declared(kFile).has_value());
  EXPECT_TRUE(Observe(b_, Declares(50)));
  EXPECT_EQ(knowledge_.Declared(kFile)->size, 50u);
  EXPECT_FALSE(Observe(a_, Declares(100)));
}

TEST_F(BuildKnowledgeTest, ConvictedPeerIsNotBoundByWhatItSaidBefore) {
  EXPECT_TRUE(Observe(a_, Declares(101)));
  EXPECT_TRUE(Observe(a_, Declares(5), FileKind::kRootfs));
  EXPECT_TRUE(Observe(b_, Declares(7), FileKind::kSnapfile));
  EXPECT_FALSE(Observe(a_, Declares(100)));
  Apply(a_, PeerEvent::kContradiction);
  EXPECT_TRUE(Observe(a_, Declares(100)));
  EXPECT_FALSE(knowledge_.Declared(FileKind::kRootfs).has_value()) << "all it said is in doubt";
  EXPECT_TRUE(knowledge_.Declared(FileKind::kSnapfile).has_value()) << "another's word is not";
}

TEST_F(BuildKnowledgeTest, DeclarationThatTheBaseConfirmedOutlivesItsAuthor) {
  EXPECT_TRUE(Observe(a_, Declares(100)));
  EXPECT_TRUE(knowledge_.MarkBaseEqual(kFile, *knowledge_.Declared(kFile)));
  Apply(a_, PeerEvent::kDataLoss);
  EXPECT_EQ(knowledge_.Declared(kFile)->size, 100u);
  EXPECT_FALSE(Observe(a_, Declares(99)));
}

TEST_F(BuildKnowledgeTest, DeclarationSmallerThanWhatIsMappedIsNone) {
  EXPECT_FALSE(knowledge_.ObserveHead(a_, kFile, Declares(100), 101));
  EXPECT_FALSE(knowledge_.Declared(kFile).has_value());
  EXPECT_TRUE(knowledge_.ObserveHead(b_, kFile, Declares(101), 101));
  EXPECT_TRUE(knowledge_.ObserveHead(b_, kFile, {.availability = Availability::kUseStorage}, 101))
      << "need not say a size";
}

TEST_F(BuildKnowledgeTest, MetadataMayBeReplacedByANewerVersion) {
  const FileKind kind = FileKind::kMetadata;
  EXPECT_TRUE(Observe(a_, Declares(100, 1, 3), kind));
  EXPECT_TRUE(knowledge_.MarkBaseEqual(kind, *knowledge_.Declared(kind)));
  EXPECT_TRUE(Observe(a_, Declares(120, 2, 4), kind));
  EXPECT_EQ(knowledge_.Declared(kind)->size, 120u);
  EXPECT_FALSE(knowledge_.BaseFoundEqual(kind)) << "of the version before";
  EXPECT_TRUE(Observe(b_, Declares(100, 1, 3), kind)) << "an older copy is no lie";
  EXPECT_EQ(knowledge_.Declared(kind)->version, 4u);
  EXPECT_FALSE(Observe(a_, Declares(121, 2, 4), kind)) << "one version has one content";
}

TEST_F(BuildKnowledgeTest, InBaseIsSaidPerFile) {
  FileHead head = Declares(100);
  head.in_base = true;
  EXPECT_TRUE(Observe(a_, head));
  EXPECT_TRUE(knowledge_.InBase(kFile));
  EXPECT_FALSE(knowledge_.InBase(FileKind::kRootfs));
}

TEST_F(BuildKnowledgeTest, QuarantineEndsDenialLasts) {
  Apply(a_, PeerEvent::kBadBytes);
  Apply(b_, PeerEvent::kDenied);
  EXPECT_TRUE(View(a_).demoted);
  EXPECT_TRUE(View(b_).demoted);
  now_ += budgets_.quarantine;
  EXPECT_FALSE(View(a_).demoted);
  EXPECT_TRUE(View(b_).demoted);
  knowledge_.OnBytes(b_);
  EXPECT_FALSE(View(b_).demoted);
}

TEST_F(BuildKnowledgeTest, PauseAfterNotAvailable) {
  Apply(a_, PeerEvent::kNotAvailable);
  EXPECT_TRUE(View(a_).demoted);
  EXPECT_TRUE(View(a_).has_not);
  now_ += budgets_.not_available_pause;
  EXPECT_FALSE(View(a_).demoted);
  EXPECT_FALSE(View(a_).has_not);
}

TEST_F(BuildKnowledgeTest, OverloadedPeerIsLeftAloneByAllForItsHint) {
  Apply(a_, PeerEvent::kOverloaded, absl::Milliseconds(300));
  EXPECT_EQ(View(a_).not_before, now_ + absl::Milliseconds(300));
  EXPECT_FALSE(View(a_).demoted);
  Apply(a_, PeerEvent::kOverloaded, absl::Hours(1));
  EXPECT_EQ(View(a_).not_before, now_ + absl::Seconds(5));
  Apply(b_, PeerEvent::kNotYet, absl::Seconds(1));  // Of one file only: no other read waits.
  EXPECT_LE(View(b_).not_before, now_);
}

TEST_F(BuildKnowledgeTest, BaseThatDiffersQuarantinesWhoDeclared) {
  EXPECT_TRUE(Observe(a_, Declares(100)));
  const DeclaredFile declared = *knowledge_.Declared(kFile);
  EXPECT_EQ(knowledge_.Refute(kFile, declared, now_), "10.0.0.1:1");
  EXPECT_TRUE(View(a_).demoted);
  EXPECT_FALSE(knowledge_.Declared(kFile).has_value());
  EXPECT_EQ(knowledge_.Refute(kFile, declared, now_), std::nullopt);
}

// A look at the base takes time: what it says of one declaration says nothing of the next.
TEST_F(BuildKnowledgeTest, LookAtTheBaseJudgesOnlyTheDeclarationItWasComparedWith) {
  EXPECT_TRUE(Observe(a_, Declares(100)));
  const DeclaredFile compared = *knowledge_.Declared(kFile);
  Apply(a_, PeerEvent::kBadBytes);
  EXPECT_TRUE(Observe(b_, Declares(50)));
  EXPECT_FALSE(knowledge_.MarkBaseEqual(kFile, compared));
  EXPECT_FALSE(knowledge_.BaseFoundEqual(kFile));
  EXPECT_EQ(knowledge_.Refute(kFile, compared, now_), std::nullopt);
  EXPECT_FALSE(View(b_).demoted);
  EXPECT_EQ(knowledge_.Declared(kFile)->size, 50u);
}

TEST_F(BuildKnowledgeTest, WriteForgetsTheFile) {
  EXPECT_TRUE(Observe(a_, Declares(100)));
  knowledge_.Forget(kFile);
  EXPECT_FALSE(knowledge_.Declared(kFile).has_value());
  EXPECT_TRUE(Observe(a_, Declares(200)));
}

TEST_F(BuildKnowledgeTest, HedgeIsNotWorthwhileWhereTheBaseJustHadNothing) {
  EXPECT_TRUE(knowledge_.HedgeWorthwhile(kFile, now_));
  knowledge_.NoteBaseMissing(kFile, now_);
  EXPECT_FALSE(knowledge_.HedgeWorthwhile(kFile, now_));
  EXPECT_TRUE(knowledge_.HedgeWorthwhile(FileKind::kRootfs, now_));
  EXPECT_TRUE(knowledge_.HedgeWorthwhile(kFile, now_ + absl::Seconds(1)));
}

TEST_F(BuildKnowledgeTest, LogLinesAreLimitedPerPeerAndReason) {
  EXPECT_EQ(knowledge_.MayLog(a_, PeerEvent::kStalled, now_), 0u);
  EXPECT_EQ(knowledge_.MayLog(a_, PeerEvent::kStalled, now_), std::nullopt);
  EXPECT_EQ(knowledge_.MayLog(a_, PeerEvent::kStalled, now_), std::nullopt);
  EXPECT_EQ(knowledge_.MayLog(a_, PeerEvent::kBadBytes, now_), 0u);
  EXPECT_EQ(knowledge_.MayLog(b_, PeerEvent::kStalled, now_), 0u);
  now_ += absl::Seconds(10);
  EXPECT_EQ(knowledge_.MayLog(a_, PeerEvent::kStalled, now_), 2u) << "how many were left out";
}

}  // namespace
}  // namespace peerchunk
