// The mechanism, by what may happen at a peer: at open and in the middle of a stream, with times
// on a virtual clock.
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/blob_limits.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "tests/build/held_executor.h"
#include "tests/peer/peer_fixture.h"
#include "tests/support/simulation.h"

namespace peerchunk::test {
namespace {

constexpr FileKind kDiff = FileKind::kMemfile;

class SourceReaderTest : public testing::Test {
 protected:
  SourceReaderTest() { UsePeers({kPeerA}); }

  void UsePeers(const std::vector<std::string>& addresses) { provider_ = world_.Open(addresses); }
  SimulatedNode& A() { return world_.Node(kPeerA); }
  SimulatedNode& B() { return world_.Node(kPeerB); }
  // Peer A has the file and is uploading the build.
  void Serve(FileKind kind, const std::string& bytes) {
    A().PutFile(FileOf(kind), bytes);
    A().SetState(kBuild, BuildState::kUploading);
  }
  // The base has the file, and the sign of completeness.
  void Complete(FileKind kind, const std::string& bytes) {
    world_.Seed(kind, bytes);
    if (kind != FileKind::kMetadata) world_.Seed(FileKind::kMetadata, "{}");
  }
  ReadOptions Within(absl::Duration time) {
    ReadOptions options;
    options.deadline = sim_.Now() + time;
    return options;
  }

  // Runs `body` as a task of the simulation, to its end.
  void Go(std::function<void()> body) {
    sim_.Spawn(std::move(body));
    ASSERT_TRUE(sim_.Run(sim_.Now() + absl::Hours(10)));
  }
  void At(absl::Duration after, std::function<void()> event) {
    sim_.SpawnAt(sim_.Now() + after, std::move(event));
  }
  // Reads the diff whole; the time it took.
  absl::Duration GoRead(const std::string& expected, const ReadOptions& options = {}) {
    absl::Duration took;
    Go([&] {
      const absl::Time begun = sim_.Now();
      const auto read = ReadAt(*provider_, 0, expected.size(), options);
      took = sim_.Now() - begun;
      EXPECT_OK(read);
      if (read.ok()) {
        EXPECT_TRUE(*read == expected);
      }
    });
    return took;
  }
  absl::Status GoFail(const ReadOptions& options, absl::Duration* took = nullptr) {
    absl::Status status;
    Go([&] {
      const absl::Time begun = sim_.Now();
      status = ReadAt(*provider_, 0, 100, options).status();
      if (took != nullptr) *took = sim_.Now() - begun;
    });
    return status;
  }

  const PeerBudgets budgets_{};
  const std::string bytes_ = SampleBytes(kMiB, 1);
  Simulation sim_{1};
  PeerWorld world_{sim_, &sim_.executor()};
  std::shared_ptr<StorageProvider> provider_;
};

// --- Falling back --------------------------------------------------------------------------------

TEST_F(SourceReaderTest, PeerThatDiesHalfWayCostsNoByteTwice) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().AddFault({.heads_too = false,
                .after_bytes = kMiB / 2,
                .error = absl::UnavailableError("connection reset")});
  GoRead(bytes_);
  EXPECT_EQ(world_.Bytes(kDiff).peer, kMiB / 2);
  EXPECT_EQ(world_.Bytes(kDiff).base, kMiB / 2);
  EXPECT_EQ(world_.Bytes(kDiff).wasted, 0u);
  EXPECT_EQ(world_.Fallbacks("unreachable"), 1u);
  EXPECT_EQ(A().open_streams(), 0u);
}

TEST_F(SourceReaderTest, SecondPeerGoesOnWhereTheFirstStopped) {
  UsePeers({kPeerA, kPeerB});
  Serve(kDiff, bytes_);
  B().PutFile(FileOf(kDiff), bytes_);
  A().AddFault({.after_bytes = 300'000, .cut = true});
  GoRead(bytes_);
  EXPECT_EQ(world_.Bytes(kDiff).peer, bytes_.size());
  EXPECT_EQ(B().requests().back().offset, 300'000u);
  EXPECT_EQ(world_.Quarantines("cut_short"), 1u);
}

TEST_F(SourceReaderTest, PartialHolderServesWhatItHas) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().AddFault({.after_bytes = 500'000, .partial = true});
  GoRead(bytes_);
  EXPECT_EQ(world_.Bytes(kDiff).peer, 500'000u);
  EXPECT_EQ(world_.Fallbacks("partial"), 1u);
  EXPECT_EQ(world_.Breaker("open"), 0u);
}

// Every way in which a stream can be wrong: the bad message is dropped, the peer quarantined.
TEST_F(SourceReaderTest, WrongStreamsAreDroppedAndTheirPeerQuarantined) {
  struct Row {
    const char* reason;
    PeerFault fault;
  };
  const std::vector<Row> rows = {
      {"bad_bytes", {.corrupt = true}},
      {"bad_bytes",
       {.alter =
            [](PeerMessage& m) {
              if (m.extent) m.extent->offset += 4096;
            }}},
      {"bad_bytes",
       {.alter =
            [](PeerMessage& m) {
              if (m.extent) m.extent->length -= 1;
            }}},
      {"bad_bytes",
       {.alter =
            [](PeerMessage& m) {
              if (m.extent) m.extent->crc32c ^= 1;
            }}},
      {"bad_bytes", {.alter = [](PeerMessage& m) { m.last = true, m.next_offset = 7; }}},
      {"bad_bytes", {.alter = [](PeerMessage& m) { m.head = FileHead(); }}},
      {"cut_short", {.cut = true}},
      {"data_loss", {.error = absl::DataLossError("block")}},
      {"bad_range_answer", {.error = absl::OutOfRangeError("no")}},
      {"bad_range_answer", {.error = absl::InvalidArgumentError("no")}},
  };
  for (const Row& row : rows) {
    for (const uint64_t at : {uint64_t{0}, uint64_t{400'000}}) {
      SCOPED_TRACE(absl::StrCat(row.reason, " at ", at));
      Simulation sim(1);
      PeerWorld world(sim);
      SimulatedNode& node = world.Node();
      node.PutFile(FileOf(kDiff), bytes_);
      world.Seed(kDiff, bytes_);
      world.Seed(FileKind::kMetadata, "{}");
      PeerFault fault = row.fault;
      fault.heads_too = false;
      fault.after_bytes = at;
      node.AddFault(fault);
      const auto provider = world.Open();
      sim.Spawn([&] {
        EXPECT_OK((*provider->OpenSeekable(FileOf(kDiff).ObjectPath()))->Size({}));
        const auto read = ReadAt(*provider, 0, bytes_.size());
        ASSERT_OK(read);
        EXPECT_TRUE(*read == bytes_);
        EXPECT_EQ(world.Quarantines(row.reason), 1u);
        EXPECT_LE(world.Bytes(kDiff).peer, at);
        // From now on the base is asked first...
        const uint64_t calls = node.calls();
        ASSERT_OK(ReadAt(*provider, 0, 4096));
        EXPECT_EQ(node.calls(), calls);
        // ...for ten minutes.
        node.ClearFaults();
        sim.SleepUntil(sim.Now() + PeerBudgets().quarantine);
        ASSERT_OK(ReadAt(*provider, 0, 4096));
        EXPECT_EQ(node.calls(), calls + 1);
      });
      ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
    }
  }
}

// --- What a peer declares ------------------------------------------------------------------------

TEST_F(SourceReaderTest, PeerWithLessThanTheHeaderMapsIsLeftForABaseThatHasIt) {
  Serve(kDiff, bytes_.substr(0, bytes_.size() - kPageBytes));
  Complete(kDiff, bytes_);
  Go([&] {
    const auto object = provider_->OpenSeekable(FileOf(kDiff).ObjectPath());
    ReadOptions options = Within(absl::Seconds(5));
    options.least_size = bytes_.size();
    const auto size = (*object)->Size(options);
    ASSERT_OK(size);
    EXPECT_EQ(*size, bytes_.size());
  });
  GoRead(bytes_);
  EXPECT_EQ(world_.Quarantines("contradiction"), 1u);
  EXPECT_EQ(world_.Bytes(kDiff).peer, 0u);
}

TEST_F(SourceReaderTest, DeclarationSmallerThanTheHeaderMapsIsDroppedOnceThatIsKnown) {
  UsePeers({kPeerA, kPeerB});
  Serve(kDiff, bytes_.substr(0, 100));
  Go([&] {
    const auto object = provider_->OpenSeekable(FileOf(kDiff).ObjectPath());
    EXPECT_EQ(*(*object)->Size({}), 100u);
    B().PutFile(FileOf(kDiff), bytes_);
    ReadOptions options = Within(absl::Seconds(5));
    options.least_size = bytes_.size() - 1;
    const auto size = (*object)->Size(options);
    ASSERT_OK(size);
    EXPECT_EQ(*size, bytes_.size());
  });
  EXPECT_EQ(world_.Quarantines("contradiction"), 1u);
}

TEST_F(SourceReaderTest, BaseWithLessThanTheHeaderMapsIsLeftForAPeer) {
  Serve(kDiff, bytes_);
  A().SetState(kBuild, BuildState::kDurable);
  Complete(kDiff, bytes_.substr(0, 5000));
  ReadOptions options = Within(absl::Seconds(5));
  options.least_size = bytes_.size();
  Go([&] {
    const auto object = provider_->OpenSeekable(FileOf(kDiff).ObjectPath());
    const auto size = (*object)->Size(options);
    ASSERT_OK(size);
    EXPECT_EQ(*size, bytes_.size());
  });
  EXPECT_EQ(world_.Quarantines("base_differs"), 0u) << "the peer is right";
  A().Kill();
  const absl::Status alone = [&] {
    absl::Status status;
    Go([&] {
      options.deadline = sim_.Now() + absl::Seconds(2);
      status = (*provider_->OpenSeekable(FileOf(kDiff).ObjectPath()))->Size(options).status();
    });
    return status;
  }();
  EXPECT_NE(alone.message().find("its object has 5000 bytes"), std::string::npos) << alone;
}

TEST_F(SourceReaderTest, SizeIsAskedAgainWhenItsAuthorIsDoubtedOrTheBaseKnowsBetter) {
  Serve(kDiff, bytes_);
  const auto size = [&] {
    absl::StatusOr<uint64_t> size;
    Go([&] {
      size = (*provider_->OpenSeekable(FileOf(kDiff).ObjectPath()))->Size(Within(absl::Seconds(5)));
    });
    EXPECT_OK(size);
    return size.value_or(0);
  };
  EXPECT_EQ(size(), bytes_.size());
  const uint64_t calls = A().calls();
  EXPECT_EQ(size(), bytes_.size());
  EXPECT_EQ(A().calls(), calls);
  A().AddFault({.times = 1, .error = absl::PermissionDeniedError("who are you")});
  Go([&] { ReadAt(*provider_, 0, 1, Within(absl::Milliseconds(1))).status().IgnoreError(); });
  EXPECT_EQ(size(), bytes_.size());
  EXPECT_EQ(A().calls(), calls + 2) << "the author's credentials are in doubt";
  Complete(kDiff, bytes_ + "more");
  A().SetState(kBuild, BuildState::kDurable);
  Go([&] { ReadBlob(*provider_, FileKind::kSnapfile).status().IgnoreError(); });
  EXPECT_EQ(size(), bytes_.size() + 4);
}

// A says one byte too many, then sends a wrong one: what it said binds nobody.
TEST_F(SourceReaderTest, SizeOfAConvictedPeerIsNoReasonToDoubtTheNext) {
  for (const uint64_t at : {uint64_t{0}, uint64_t{400'000}}) {
    SCOPED_TRACE(at);
    Simulation sim(1);
    PeerWorld world(sim);
    for (const char* peer : {kPeerA, kPeerB}) world.Node(peer).PutFile(FileOf(kDiff), bytes_);
    world.Node(kPeerA).AddFault({.times = 1, .alter = [at](PeerMessage& m) {
                                   if (m.head) ++m.head->total_size;
                                   if (m.extent && m.extent->offset >= at) m.extent->crc32c ^= 1;
                                 }});
    const auto provider = world.Open({kPeerA, kPeerB});
    sim.Spawn([&] {
      ReadOptions options;
      options.deadline = sim.Now() + absl::Seconds(5);
      const auto read = ReadRange(*provider, 0, UINT64_MAX, options);
      ASSERT_OK(read);
      EXPECT_TRUE(*read == bytes_);
      EXPECT_LE(sim.Now(), options.deadline - absl::Milliseconds(4500));
    });
    ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
    EXPECT_EQ(world.Quarantines("bad_bytes"), 1u);
    EXPECT_EQ(world.Quarantines("contradiction"), 0u);
  }
}

TEST_F(SourceReaderTest, OnlyPeerMayCorrectWhatItDeclaredWrongly) {
  Serve(kDiff, bytes_);
  A().AddFault({.times = 1, .alter = [](PeerMessage& m) {
                  if (m.head) ++m.head->total_size;
                }});
  Go([&] { EXPECT_OK((*provider_->OpenSeekable(FileOf(kDiff).ObjectPath()))->Size({})); });
  Go([&] {
    const auto read = ReadRange(*provider_, 0, UINT64_MAX, Within(absl::Seconds(5)));
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes_);
  });
  EXPECT_EQ(world_.Quarantines("contradiction"), 1u);
}

// Another reader convicts A while this one is in the middle of A's stream.
TEST_F(SourceReaderTest, SizeThatWasDroppedMeanwhileIsNoReasonToDoubtTheNext) {
  for (const int more : {1, -1}) {
    SCOPED_TRACE(more);
    Simulation sim(1);
    PeerWorld world(sim);
    for (const char* peer : {kPeerA, kPeerB}) world.Node(peer).PutFile(FileOf(kDiff), bytes_);
    for (const uint32_t wrong_crc : {0, 1}) {
      world.Node(kPeerA).AddFault({.times = 1, .alter = [more, wrong_crc](PeerMessage& m) {
                                     if (m.head) m.head->total_size += more;
                                     if (m.extent) m.extent->crc32c ^= wrong_crc;
                                   }});
    }
    const auto provider = world.Open({kPeerA, kPeerB});
    sim.Spawn([&] {
      const auto object = provider->OpenSeekable(FileOf(kDiff).ObjectPath());
      const auto reader = (*object)->OpenRangeReader(0, UINT64_MAX, {});
      std::string got;
      const auto take = [&] {
        const auto extent = (*reader)->Next();
        ASSERT_OK(extent);
        if (!extent->has_value()) return;
        got.resize(got.size() + (*extent)->length);
        (*extent)->CopyTo(got.data() + (*extent)->offset);
      };
      take();
      EXPECT_OK(ReadAt(*provider, 0, 10));
      EXPECT_EQ(world.Quarantines("bad_bytes"), 1u);
      world.Node(kPeerA).Kill();
      for (size_t before = SIZE_MAX; before != got.size();) {
        before = got.size();
        take();
      }
      EXPECT_TRUE(got == bytes_) << got.size();
    });
    ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
    EXPECT_EQ(world.Quarantines("contradiction"), 0u);
    EXPECT_EQ(world.Quarantines("cut_short"), 0u);
  }
}

TEST_F(SourceReaderTest, QuarantinedPeerIsAskedLastWhenItIsTheOnlySource) {
  Serve(kDiff, bytes_);
  A().AddFault({.heads_too = false, .times = 1, .corrupt = true});
  GoRead(bytes_, Within(absl::Seconds(5)));
  EXPECT_EQ(world_.Quarantines("bad_bytes"), 1u);
  EXPECT_EQ(world_.Bytes(kDiff).peer, bytes_.size());
  EXPECT_GT(world_.Bytes(kDiff).wasted, 0u);
}

TEST_F(SourceReaderTest, DeniedIsStickyAndOrdersOnly) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().AddFault({.error = absl::PermissionDeniedError("who are you")});
  GoRead(bytes_);
  GoRead(bytes_);
  EXPECT_EQ(A().calls(), 1u);
  EXPECT_EQ(world_.Fallbacks("denied"), 1u);
  // With nothing in the base it is asked all the same.
  world_.memory.Remove(FileOf(kDiff).ObjectPath());
  A().ClearFaults();
  GoRead(bytes_, Within(absl::Seconds(5)));
}

TEST_F(SourceReaderTest, ConnectionThatCredentialsForbidIsADenial) {
  world_.network->Forbid(kPeerA);
  Complete(kDiff, bytes_);
  GoRead(bytes_);
  EXPECT_EQ(world_.Fallbacks("denied"), 1u);
}

TEST_F(SourceReaderTest, OverloadedPeerIsAskedAgainAfterItsHint) {
  Serve(kDiff, bytes_);
  A().AddFault({.times = 2,
                .error = WithRetryAfter(absl::ResourceExhaustedError("busy"), absl::Seconds(1))});
  const absl::Duration took = GoRead(bytes_, Within(absl::Seconds(30)));
  EXPECT_GE(took, absl::Seconds(2));
  EXPECT_LT(took, absl::Seconds(3));
  EXPECT_EQ(world_.Fallbacks("overloaded"), 2u);
  EXPECT_EQ(world_.Breaker("open"), 0u);
}

TEST_F(SourceReaderTest, OverloadedPeerIsSparedWhenTheBaseHasIt) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().AddFault({.error = WithRetryAfter(absl::ResourceExhaustedError("busy"), absl::Seconds(1))});
  for (int i = 0; i < 5; ++i) EXPECT_LT(GoRead(bytes_), absl::Milliseconds(1));
  EXPECT_EQ(A().calls(), 1u);
}

TEST_F(SourceReaderTest, NotYetWaitsAsLongAsHinted) {
  A().PutNotYet(FileOf(kDiff), absl::Milliseconds(700));
  At(absl::Milliseconds(100), [&] { Serve(kDiff, bytes_); });
  const absl::Duration took = GoRead(bytes_, Within(absl::Seconds(30)));
  EXPECT_GE(took, absl::Milliseconds(700));
  EXPECT_LT(took, absl::Seconds(1));
}

TEST_F(SourceReaderTest, NotYetGoesToTheBaseWhenTheFileIsThere) {
  A().PutNotYet(FileOf(kDiff), absl::Seconds(5));
  A().SetInBase(FileOf(kDiff));
  world_.Seed(kDiff, bytes_);
  EXPECT_LT(GoRead(bytes_), absl::Milliseconds(1));
}

TEST_F(SourceReaderTest, AbsentIsNotFoundAtOnce) {
  A().PutAbsent(FileOf(kDiff));
  world_.Seed(kDiff, bytes_);
  absl::Duration took;
  EXPECT_EQ(GoFail({}, &took).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(took, absl::ZeroDuration());
}

TEST_F(SourceReaderTest, AbsentOfAFileThatAnotherPeerDeclaredIsAContradiction) {
  UsePeers({kPeerA, kPeerB});
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().AddFault({.after_bytes = kMiB / 2, .error = absl::UnavailableError("gone")});
  B().PutAbsent(FileOf(kDiff));
  GoRead(bytes_);
  EXPECT_EQ(world_.Bytes(kDiff).peer, kMiB / 2);
  EXPECT_EQ(world_.Bytes(kDiff).base, kMiB / 2);
  EXPECT_EQ(world_.Quarantines("contradiction"), 1u);
  EXPECT_EQ(world_.Fallbacks("absent"), 0u);
}

// --- Durable -------------------------------------------------------------------------------------

TEST_F(SourceReaderTest, DurableBuildComesFromTheBaseForEveryReader) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().SetState(kBuild, BuildState::kDurable);
  GoRead(bytes_);
  const uint64_t calls = A().calls();
  GoRead(bytes_);
  const auto another = world_.Open({kPeerA});  // Another reader of the process.
  Go([&] { EXPECT_OK(ReadAt(*another, 0, 100)); });
  EXPECT_EQ(A().calls(), calls);
  EXPECT_EQ(world_.Bytes(kDiff).peer, 0u);
}

TEST_F(SourceReaderTest, PeerServesADurableBuildWhenTheBaseFailsInTheMiddle) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().SetState(kBuild, BuildState::kDurable);
  for (const bool stalls : {false, true}) {
    SCOPED_TRACE(stalls);
    world_.base.ClearFaults();
    StorageFault fault{.call = StorageCall::kRead, .times = 1, .after_bytes = 300'000};
    fault.stall = stalls;
    if (!stalls) fault.error = absl::UnavailableError("base hiccup");
    world_.base.AddFault(fault);
    const uint64_t before = world_.Bytes(kDiff).peer;
    absl::Duration took;
    Go([&] {
      const absl::Time begun = sim_.Now();
      const auto read = ReadRange(*provider_, 0, UINT64_MAX, Within(absl::Seconds(60)));
      took = sim_.Now() - begun;
      ASSERT_OK(read);
      EXPECT_TRUE(*read == bytes_);
    });
    EXPECT_LT(took, stalls ? absl::Seconds(20) : absl::Milliseconds(1));
    EXPECT_GT(world_.Bytes(kDiff).peer, before);
    EXPECT_TRUE(A().requests().back().even_if_durable);
    EXPECT_GT(A().requests().back().offset, 0u);
  }
  EXPECT_EQ(world_.Fallbacks("base_failed"), 1u);
  EXPECT_GE(world_.Fallbacks("base_stalled"), 1u);
}

TEST_F(SourceReaderTest, PeerServesADurableBuildThatTheBaseLost) {
  Serve(kDiff, bytes_);
  A().SetState(kBuild, BuildState::kDurable);
  GoRead(bytes_);
  EXPECT_EQ(world_.Bytes(kDiff).peer, bytes_.size());
  EXPECT_EQ(world_.Fallbacks("base_missing"), 1u);
}

TEST_F(SourceReaderTest, BaseThatDiffersFromWhatADurablePeerDeclaredWins) {
  Serve(kDiff, bytes_);
  GoRead(bytes_);
  const std::string other = SampleBytes(kMiB, 2);
  Complete(kDiff, other);
  A().SetState(kBuild, BuildState::kDurable);
  Go([&] { ReadBlob(*provider_, FileKind::kSnapfile).status().IgnoreError(); });
  GoRead(other);
  EXPECT_EQ(world_.Quarantines("base_differs"), 1u);
}

// The base has told the size, though it could not give all of the bytes.
TEST_F(SourceReaderTest, PeerThatDeclaresLessThanTheBaseHasIsNotBelievedInTheMiddle) {
  A().SetState(kBuild, BuildState::kDurable);
  Complete(kDiff, bytes_);
  Go([&] { ReadBlob(*provider_, FileKind::kSnapfile).status().IgnoreError(); });
  A().PutFile(FileOf(kDiff), bytes_.substr(0, 500'000));
  world_.base.AddFault(
      {.times = 1, .after_bytes = 300'000, .error = absl::UnavailableError("base hiccup")});
  Go([&] {
    const auto read = ReadRange(*provider_, 0, bytes_.size(), Within(absl::Seconds(5)));
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes_) << read->size();
  });
  EXPECT_EQ(A().requests().back().offset, 300'000u);
  EXPECT_EQ(world_.Quarantines("contradiction"), 1u);
  EXPECT_EQ(world_.Bytes(kDiff).peer, 0u);
}

TEST_F(SourceReaderTest, NewerMetadataOfADurableBuildComesFromThePeer) {
  A().PutFile(FileOf(FileKind::kMetadata), "new", 2);
  world_.Seed(FileKind::kMetadata, "old");
  world_.directory->KnownDurable(kBuild);
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  world_.Seed(FileKind::kMetadata, "old");
  A().AddFault({.file = kDiff, .alter = [](PeerMessage& m) {
                  if (m.head) m.head->status.state = BuildState::kDurable;
                }});
  GoRead(bytes_);
  ASSERT_TRUE(world_.directory->KnownDurable(kBuild));
  Go([&] {
    auto read = ReadBlob(*provider_, FileKind::kMetadata);
    ASSERT_OK(read);
    EXPECT_EQ(*read, "new");
    // With the peer gone, the older one has to do.
    A().Kill();
    read = ReadBlob(*provider_, FileKind::kMetadata);
    ASSERT_OK(read);
    EXPECT_EQ(*read, "old");
  });
}

// --- Not yet -------------------------------------------------------------------------------------

TEST_F(SourceReaderTest, MissWhileUploadingMeansNotYet) {
  Serve(kDiff, bytes_);
  GoRead(bytes_);
  A().Kill();
  At(absl::Seconds(3), [&] { Complete(kDiff, bytes_); });
  const absl::Duration took = GoRead(bytes_, Within(absl::Seconds(60)));
  EXPECT_GE(took, absl::Seconds(3));
  EXPECT_LT(took, absl::Seconds(6));
}

TEST_F(SourceReaderTest, DeadSourceThatComesBackIsUsedAgain) {
  Serve(kDiff, bytes_);
  A().Kill();
  At(absl::Seconds(20), [&] { A().Revive(); });
  const absl::Duration took = GoRead(bytes_, Within(absl::Seconds(60)));
  EXPECT_GE(took, absl::Seconds(20));
  EXPECT_LT(took, absl::Seconds(23));
}

// A filesystem-only build whose source died: what it does not have is not waited for.
TEST_F(SourceReaderTest, FileThatACompleteUploadLacksIsNotFoundWithoutItsSource) {
  Serve(kDiff, bytes_);
  A().Kill();
  world_.Seed(FileKind::kMetadata, "{}");
  absl::Duration took;
  const absl::Status status = GoFail(Within(absl::Seconds(60)), &took);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_LE(took, absl::Seconds(2));
}

TEST_F(SourceReaderTest, FileThatADurableBuildLacksIsNotFoundWithoutItsSource) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().SetState(kBuild, BuildState::kDurable);
  GoRead(bytes_);  // It says so here.
  A().Kill();
  Go([&] {
    const absl::Time begun = sim_.Now();
    const auto read = ReadBlob(*provider_, FileKind::kSnapfile, Within(absl::Seconds(60)));
    EXPECT_EQ(CodeOf(read), absl::StatusCode::kNotFound) << read.status();
    EXPECT_LE(sim_.Now() - begun, absl::Seconds(2));
  });
}

TEST_F(SourceReaderTest, NotYetEndsUnavailableAndNamesBothCauses) {
  Serve(kDiff, bytes_);
  A().Kill();
  absl::Duration took;
  const absl::Status status = GoFail(Within(absl::Seconds(10)), &took);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_LE(took, absl::Seconds(10));
  EXPECT_GE(took, absl::Seconds(9));
  const std::string message(status.message());
  for (const char* part : {"read aaaaaaaa-0000-4000-8000-000000000001/memfile [0, +100)",
                           "peer 10.0.0.1:7070: connection refused", "base (memory): ",
                           "no metadata.json", "see that its source node is up", "try again"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << " in " << message;
  }
}

TEST_F(SourceReaderTest, ReadWithoutADeadlineEndsToo) {
  A().Kill();
  absl::Duration took;
  EXPECT_EQ(GoFail({}, &took).code(), absl::StatusCode::kUnavailable);
  EXPECT_LE(took, budgets_.give_up);
}

TEST_F(SourceReaderTest, NotFoundWhenNobodyHasIt) {
  A().SetState(BuildId::Random(), BuildState::kLocal);  // Up, with another build.
  absl::Duration took;
  EXPECT_EQ(GoFail({}, &took).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(took, absl::ZeroDuration());
  EXPECT_EQ(GoFail({}, &took).code(), absl::StatusCode::kNotFound) << "also while it is paused";
}

TEST_F(SourceReaderTest, OneUnreachableSourceMakesItNotYet) {
  UsePeers({kPeerA, kPeerB});
  A().SetState(BuildId::Random(), BuildState::kLocal);
  B().Kill();
  EXPECT_EQ(GoFail(Within(absl::Seconds(2))).code(), absl::StatusCode::kUnavailable);
}

TEST_F(SourceReaderTest, UndurableBaseIsASourceOnlyIfItsObjectIsTheDeclaredOne) {
  Serve(kDiff, bytes_);
  GoRead(bytes_);
  A().Kill();
  world_.Seed(kDiff, SampleBytes(kMiB, 9));  // Left by something else under this name.
  EXPECT_EQ(GoFail(Within(absl::Seconds(2))).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(world_.Bytes(kDiff).base, 0u);
  world_.Seed(kDiff, bytes_);
  GoRead(bytes_, Within(absl::Seconds(2)));
}

TEST_F(SourceReaderTest, SilentSourceLeavesACompleteBase) {
  A().Kill();
  world_.Seed(kDiff, bytes_);
  EXPECT_EQ(GoFail(Within(absl::Seconds(2))).code(), absl::StatusCode::kUnavailable)
      << "half an upload is no source";
  Complete(kDiff, bytes_);
  GoRead(bytes_, Within(absl::Seconds(2)));
}

// --- Time ----------------------------------------------------------------------------------------

TEST_F(SourceReaderTest, BlackHoleCostsTheHedgeDelay) {
  A().Freeze(true);
  Complete(kDiff, bytes_);
  EXPECT_EQ(GoRead(bytes_), budgets_.hedge_ceiling);
  EXPECT_EQ(world_.Hedges("won"), 1u);
  EXPECT_EQ(world_.Fallbacks("hedge_won"), 1u);
  EXPECT_EQ(A().open_streams(), 0u);
  // And soon nothing: a dial that hangs longer than any hedge waits counts against the breaker.
  for (int i = 0; i < 2; ++i) GoRead(bytes_);
  EXPECT_EQ(world_.Breaker("open"), 1u);
  EXPECT_EQ(GoRead(bytes_), absl::ZeroDuration());
}

TEST_F(SourceReaderTest, BlackHoleBeforeAHealthyPeerCostsTheHedgeDelayThoughTheBaseHasNothing) {
  UsePeers({kPeerA, kPeerB});
  A().Freeze(true);
  B().PutFile(FileOf(kDiff), bytes_);
  // Once for the base, which might have had it, and once to see that it has not.
  EXPECT_EQ(GoRead(bytes_), 2 * budgets_.hedge_ceiling);
  EXPECT_EQ(world_.Fallbacks("passed_over"), 1u);
  EXPECT_EQ(GoRead(bytes_), budgets_.hedge_ceiling) << "the base is known not to have it";
  EXPECT_LE(GoRead(bytes_), 2 * budgets_.hedge_ceiling);
  EXPECT_EQ(world_.Breaker("open"), 1u);
  EXPECT_EQ(GoRead(bytes_), absl::ZeroDuration());
  EXPECT_EQ(world_.Fallbacks("dial_timeout"), 0u);
  EXPECT_EQ(A().open_streams(), 0u);
}

TEST_F(SourceReaderTest, SlowPeerIsPassedOverOnceAndThenWaitedFor) {
  UsePeers({kPeerA, kPeerB});
  Serve(kDiff, bytes_);
  A().SetLatency(absl::Milliseconds(1500));
  B().AddFault({.error = absl::UnavailableError("gone")});
  const absl::Duration took = GoRead(bytes_, Within(absl::Seconds(30)));
  EXPECT_LT(took, 2 * budgets_.hedge_ceiling + absl::Milliseconds(1600));
  EXPECT_EQ(world_.Fallbacks("passed_over"), 1u);
  EXPECT_EQ(world_.Bytes(kDiff).peer, bytes_.size());
}

TEST_F(SourceReaderTest, PeersArePassedOverWithinTheShareOfHedges) {
  UsePeers({kPeerA, kPeerB});
  Serve(kDiff, bytes_);
  B().PutFile(FileOf(kDiff), bytes_);
  A().SetLatency(absl::Milliseconds(800));
  constexpr int kReads = 100;
  Go([&] {
    for (int i = 0; i < kReads; ++i) ASSERT_OK(ReadAt(*provider_, 0, 4096));
  });
  EXPECT_LE(static_cast<double>(world_.Fallbacks("passed_over") + world_.Hedges("sent")),
            budgets_.hedge_burst + budgets_.hedge_share * kReads);
  EXPECT_GT(world_.Hedges("refused"), 0u);
}

TEST_F(SourceReaderTest, FirstByteBudgetHoldsForAPeerThatIsConnected) {
  UsePeers({kPeerA, kPeerB});
  Serve(kDiff, bytes_);
  A().AddFault({.stall = true});
  B().PutFile(FileOf(kDiff), bytes_);
  ReadOptions prefetch;  // Nobody waits: no hedge, nobody is passed over.
  prefetch.priority = Priority::kPrefetch;
  EXPECT_EQ(GoRead(bytes_, prefetch), budgets_.first_byte);
  EXPECT_EQ(world_.Fallbacks("first_byte_timeout"), 1u);
  EXPECT_EQ(world_.Fallbacks("dial_timeout"), 0u);
  for (uint32_t i = 1; i < budgets_.breaker_failures; ++i) GoRead(bytes_, prefetch);
  EXPECT_EQ(world_.Breaker("open"), 1u);
  EXPECT_EQ(GoRead(bytes_, prefetch), absl::ZeroDuration());
}

// However many are silent, the base has its share of the whole deadline.
TEST_F(SourceReaderTest, SilentPeersLeaveTheBaseItsShareOfTheDeadline) {
  std::vector<std::string> addresses;
  for (int i = 1; i <= 5; ++i) {
    addresses.push_back(absl::StrCat("10.0.0.", i, ":7070"));
    world_.Node(addresses.back()).AddFault({.stall = true});
  }
  UsePeers(addresses);
  Complete(kDiff, bytes_);
  ReadOptions options = Within(absl::Seconds(3));
  options.priority = Priority::kPrefetch;
  const absl::Duration took = GoRead(bytes_, options);
  EXPECT_LE(took, absl::Milliseconds(2100));
  EXPECT_GE(took, absl::Milliseconds(2099));
  EXPECT_EQ(world_.Fallbacks("out_of_budget"), 5u);
}

// Above the floor, and yet not fast enough for what is left of the deadline.
TEST_F(SourceReaderTest, StreamTooSlowForTheDeadlineIsLeftForTheBase) {
  const std::string big = SampleBytes(8 * kMiB, 3);
  Serve(kDiff, big);
  Complete(kDiff, big);
  A().SetExtentBytes(4096);
  A().SetBytesPerSecond(budgets_.floor_bytes_per_second * 2);
  absl::Duration took = GoRead(big, Within(absl::Seconds(10)));
  EXPECT_GE(took, absl::Milliseconds(6999));
  EXPECT_LT(took, absl::Milliseconds(7100));
  EXPECT_EQ(world_.Fallbacks("out_of_budget"), 1u);
  // One that is fast enough is left alone...
  A().SetBytesPerSecond(kMiB);
  EXPECT_GE(GoRead(big, Within(absl::Seconds(10))), absl::Milliseconds(7900));
  EXPECT_EQ(world_.Fallbacks("out_of_budget"), 1u);
  // ...until it becomes slow.
  A().AddFault({.after_bytes = 7600 * kKiB,
                .trickle_bytes_per_second = budgets_.floor_bytes_per_second * 11 / 10});
  took = GoRead(big, Within(absl::Seconds(9)));
  EXPECT_GT(took, absl::Milliseconds(7400));
  EXPECT_LT(took, absl::Seconds(9));
  EXPECT_EQ(world_.Fallbacks("out_of_budget"), 2u);
}

// The look at the base is no part of the window before it.
TEST_F(SourceReaderTest, BaseThatIsSilentWhenItIsLookedAtAgainIsLeft) {
  const std::string big = SampleBytes(20 * kMiB, 3);
  Serve(kDiff, big);
  Complete(kDiff, big);
  A().SetState(kBuild, BuildState::kDurable);
  // It says at first where to read, and no more.
  A().AddFault({.heads_too = false, .times = 1, .alter = [](PeerMessage& m) {
                  m.head->total_size = 0;
                  m.head->file_crc32c.reset();
                }});
  A().AddFault({.heads_too = false,
                .times = 1,
                .after_bytes = 5 * kMiB,
                .error = absl::UnavailableError("gone")});
  StorageFault fails{.times = 1, .after_bytes = 5 * kMiB};
  fails.error = absl::UnavailableError("base hiccup");
  world_.base.AddFault(fails);
  StorageFault silent{
      .call = StorageCall::kStat, .path = FileOf(kDiff).ObjectPath(), .skip = 1, .times = 1};
  silent.stall = true;
  world_.base.AddFault(silent);
  Go([&] {
    const auto read = ReadRange(*provider_, 0, UINT64_MAX, Within(absl::Seconds(60)));
    ASSERT_OK(read);
    EXPECT_TRUE(*read == big);
  });
  EXPECT_EQ(world_.Fallbacks("base_stalled"), 1u);
  EXPECT_EQ(world_.Bytes(kDiff).base, 5 * kMiB);
}

TEST_F(SourceReaderTest, BlackHoleCostsTheHedgeDelayForHeadsToo) {
  A().Freeze(true);
  Complete(FileKind::kSnapfile, "snap");
  Go([&] {
    const absl::Time begun = sim_.Now();
    const auto exists =
        (*provider_->OpenBlob(FileOf(FileKind::kSnapfile).ObjectPath()))->Exists({});
    ASSERT_OK(exists);
    EXPECT_TRUE(*exists);
    EXPECT_EQ(sim_.Now() - begun, budgets_.hedge_ceiling);
  });
}

TEST_F(SourceReaderTest, WithoutHedgesABlackHoleCostsTheDialBudget) {
  Simulation sim(1);
  PeerWorld world(sim);
  world.Node().Freeze(true);
  world.Seed(kDiff, bytes_);
  world.Seed(FileKind::kMetadata, "{}");
  const auto provider = world.Open();
  sim.Spawn([&] {
    const absl::Time begun = sim.Now();
    ASSERT_OK(ReadAt(*provider, 0, 100));
    EXPECT_EQ(sim.Now() - begun, budgets_.dial);
    EXPECT_EQ(world.Fallbacks("dial_timeout"), 1u);
    // A caller in a hurry: most of the deadline for the peer, the rest for the base.
    ReadOptions options;
    options.deadline = sim.Now() + absl::Seconds(1);
    ASSERT_OK(ReadAt(*provider, 0, 100, options));
    EXPECT_EQ(options.deadline - sim.Now(), absl::Seconds(1) * budgets_.base_reserve);
  });
  ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
}

TEST_F(SourceReaderTest, StallInTheMiddleCostsTheStallBudget) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().AddFault({.after_bytes = 700'000, .stall = true});
  EXPECT_EQ(GoRead(bytes_), budgets_.stall);
  EXPECT_EQ(world_.Bytes(kDiff).peer, 700'000u);
  EXPECT_EQ(world_.Fallbacks("stall"), 1u);
  EXPECT_EQ(world_.metrics.CounterValue("peerchunk_stalls_total"), 1u);
}

TEST_F(SourceReaderTest, TrickleUnderTheFloorIsAStall) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().SetExtentBytes(4096);
  A().AddFault({.trickle_bytes_per_second = budgets_.floor_bytes_per_second / 2});
  EXPECT_LT(GoRead(bytes_), budgets_.stall * 1.1);
  EXPECT_EQ(world_.Fallbacks("stall"), 1u);
}

TEST_F(SourceReaderTest, SlowStreamOverTheFloorIsLeftAlone) {
  const std::string big = SampleBytes(4 * kMiB, 3);
  Serve(kDiff, big);
  Complete(kDiff, big);
  A().SetExtentBytes(4096);
  A().SetBytesPerSecond(budgets_.floor_bytes_per_second * 5 / 4);
  EXPECT_GT(GoRead(big), absl::Seconds(12));
  EXPECT_EQ(world_.Bytes(kDiff).peer, big.size());
}

TEST_F(SourceReaderTest, LongStreamThatGoesOnHasNoEndInTime) {
  const std::string big(100 * kMiB, 'x');
  Serve(kDiff, big);
  Complete(kDiff, big);
  A().SetExtentBytes(kMiB);
  A().SetBytesPerSecond(budgets_.floor_bytes_per_second * 2);
  EXPECT_GT(GoRead(big), budgets_.give_up);
  EXPECT_EQ(world_.Bytes(kDiff).peer, big.size());
  EXPECT_EQ(A().byte_calls(), 1u);
}

TEST_F(SourceReaderTest, StallClockStopsWhileTheCallerIsAway) {
  Serve(kDiff, bytes_);
  Go([&] {
    auto object = provider_->OpenSeekable(FileOf(kDiff).ObjectPath());
    auto reader = (*object)->OpenRangeReader(0, UINT64_MAX, {});
    uint64_t got = 0;
    while (true) {
      const auto extent = (*reader)->Next();
      ASSERT_OK(extent);
      if (!extent->has_value()) break;
      got += (*extent)->length;
      sim_.SleepUntil(sim_.Now() + absl::Seconds(30));
    }
    EXPECT_EQ(got, bytes_.size());
  });
  EXPECT_EQ(world_.Fallbacks("stall"), 0u);
}

TEST_F(SourceReaderTest, CallerMayBeAwayForLongerThanAReadMayStandStill) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  for (const bool from_peer : {true, false}) {
    SCOPED_TRACE(from_peer);
    if (!from_peer) A().Kill();
    Go([&] {
      auto object = provider_->OpenSeekable(FileOf(kDiff).ObjectPath());
      auto reader = (*object)->OpenRangeReader(0, UINT64_MAX, {});
      uint64_t got = 0;
      while (true) {
        sim_.SleepUntil(sim_.Now() + budgets_.give_up + absl::Seconds(1));
        const auto extent = (*reader)->Next();
        ASSERT_OK(extent);
        if (!extent->has_value()) break;
        got += (*extent)->length;
      }
      EXPECT_EQ(got, bytes_.size());
    });
  }
  EXPECT_EQ(world_.Bytes(kDiff).peer, bytes_.size());
  EXPECT_EQ(world_.Bytes(kDiff).base, bytes_.size());
  EXPECT_EQ(world_.Fallbacks("base_stalled"), 0u);
}

TEST_F(SourceReaderTest, DeadlineOfTheCallerIsKeptEverywhere) {
  const auto silent_peer = [&] { A().AddFault({.after_bytes = 5, .stall = true}); };
  const auto silent_base = [&] {
    StorageFault fault;
    fault.stall = true;
    world_.base.AddFault(fault);
    fault.call = StorageCall::kStat;
    world_.base.AddFault(fault);
  };
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  silent_peer();
  silent_base();
  for (const int ms : {1, 10, 600, 3000, 20'000}) {
    absl::Duration took;
    const absl::Status status = GoFail(Within(absl::Milliseconds(ms)), &took);
    EXPECT_TRUE(absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status)) << status;
    EXPECT_LE(took, absl::Milliseconds(ms));
  }
}

TEST_F(SourceReaderTest, CancellationEndsEveryWaitAtOnce) {
  struct Row {
    const char* name;
    std::function<void(PeerWorld&)> set_up;
  };
  const auto stall_base = [](PeerWorld& world) {
    StorageFault fault;
    fault.stall = true;
    world.base.AddFault(fault);
  };
  const std::vector<Row> rows = {
      {"black hole", [](PeerWorld& world) { world.Node().Freeze(true); }},
      {"stalled stream", [](PeerWorld& world) { world.Node().AddFault({.stall = true}); }},
      {"backoff", [](PeerWorld& world) { world.Node().Kill(); }},
      {"stalled base",
       [&](PeerWorld& world) {
         world.Node().RemoveBuild(kBuild);
         stall_base(world);
       }},
      {"hedge and peer silent",
       [&](PeerWorld& world) {
         world.Node().Freeze(true);
         world.Seed(FileKind::kMetadata, "{}");
         stall_base(world);
       }},
  };
  for (const Row& row : rows) {
    for (const int ms : {1, 450, 550, 1900}) {
      SCOPED_TRACE(absl::StrCat(row.name, " after ", ms));
      Simulation sim(1);
      PeerWorld world(sim, &sim.executor());
      world.Node().PutFile(FileOf(kDiff), bytes_);
      world.Seed(kDiff, bytes_);
      if (std::string(row.name) == "backoff") world.memory.Remove(FileOf(kDiff).ObjectPath());
      row.set_up(world);
      const auto provider = world.Open();
      std::stop_source stop;
      absl::Time stopped = absl::InfiniteFuture();
      sim.SpawnAt(sim.Now() + absl::Milliseconds(ms), [&] {
        stopped = sim.Now();
        stop.request_stop();
      });
      sim.Spawn([&] {
        ReadOptions options;
        options.cancellation = stop.get_token();
        const auto read = ReadAt(*provider, 0, 100, options);
        EXPECT_EQ(CodeOf(read), absl::StatusCode::kCancelled) << read.status();
        EXPECT_LE(sim.Now() - stopped, absl::Milliseconds(100));
      });
      ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
      EXPECT_EQ(world.Node().open_streams(), 0u);
    }
  }
}

// --- Hedges and breaker --------------------------------------------------------------------------

TEST_F(SourceReaderTest, PeerThatIsFirstAfterAllCancelsTheHedge) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().SetLatency(budgets_.hedge_ceiling + absl::Milliseconds(10));
  StorageFault fault;
  fault.stall = true;
  world_.base.AddFault(fault);
  EXPECT_EQ(GoRead(bytes_), budgets_.hedge_ceiling + absl::Milliseconds(10));
  EXPECT_EQ(world_.Hedges("sent"), 1u);
  EXPECT_EQ(world_.Hedges("lost"), 1u);
  EXPECT_EQ(world_.Hedges("failed"), 0u) << "that it was cancelled is no failure of its own";
  EXPECT_EQ(world_.Bytes(kDiff).base, 0u);
}

TEST_F(SourceReaderTest, HedgeIsTakenOverWhenThePeerFailsMeanwhile) {
  A().SetLatency(absl::Milliseconds(700));
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().AddFault({.error = absl::UnavailableError("gone")});
  StorageFault fault{.call = StorageCall::kRead};
  fault.delay = absl::Milliseconds(900);
  world_.base.AddFault(fault);
  EXPECT_EQ(GoRead(bytes_), budgets_.hedge_ceiling + absl::Milliseconds(900));
  EXPECT_EQ(world_.base.calls(StorageCall::kRead, FileOf(kDiff).ObjectPath()), 1u);
}

// Each hedge that was sent ended in exactly one way.
void ExpectHedgesAddUp(const PeerWorld& world, uint64_t sent) {
  EXPECT_EQ(world.Hedges("sent"), sent);
  EXPECT_EQ(
      world.Hedges("won") + world.Hedges("lost") + world.Hedges("failed") + world.Hedges("dropped"),
      sent);
}

// A base that takes its time whether or not anybody still waits.
class DeafBase final : public StorageProvider {
 public:
  DeafBase(StorageProvider& base, Clock& clock, absl::Duration delay)
      : base_(base), clock_(clock), delay_(delay) {}
  absl::StatusOr<std::unique_ptr<Blob>> OpenBlob(std::string_view path) override {
    return base_.OpenBlob(path);
  }
  absl::StatusOr<std::unique_ptr<Seekable>> OpenSeekable(std::string_view path) override {
    PEERCHUNK_ASSIGN_OR_RETURN(std::unique_ptr<Seekable> object, base_.OpenSeekable(path));
    return std::make_unique<Object>(*this, std::move(object));
  }
  absl::StatusOr<uint64_t> DeleteObjectsWithPrefix(std::string_view prefix,
                                                   const WriteOptions& options) override {
    return base_.DeleteObjectsWithPrefix(prefix, options);
  }
  absl::StatusOr<uint64_t> DiscardUnfinishedWrites(
      const std::function<bool(std::string_view)>& goes_on, const WriteOptions& options) override {
    return base_.DiscardUnfinishedWrites(goes_on, options);
  }
  std::string Describe() const override { return base_.Describe(); }

 private:
  class Object final : public Seekable {
   public:
    Object(DeafBase& base, std::unique_ptr<Seekable> object)
        : base_(base), object_(std::move(object)) {}
    absl::StatusOr<uint64_t> Size(const ReadOptions& options) override {
      return object_->Size(options);
    }
    absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                  const ReadOptions&) override {
      base_.clock_.SleepUntil(base_.clock_.Now() + base_.delay_, {});
      return object_->ReadAt(offset, out, {});
    }
    absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(
        uint64_t offset, uint64_t length, const ReadOptions& options) override {
      return object_->OpenRangeReader(offset, length, options);
    }
    absl::StatusOr<ObjectStat> StoreFile(const std::string& path,
                                         const WriteOptions& options) override {
      return object_->StoreFile(path, options);
    }
    absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override {
      return object_->Stat(options);
    }

   private:
    DeafBase& base_;
    const std::unique_ptr<Seekable> object_;
  };

  StorageProvider& base_;
  Clock& clock_;
  const absl::Duration delay_;
};

TEST_F(SourceReaderTest, EachHedgeIsCountedOnceAndItsWasteToo) {
  struct Row {
    const char* outcome;
    absl::Duration peer;
    absl::Duration base;
    absl::Duration caller = absl::Seconds(60);  // Leaves then.
    const char* wasted = "hedge_lost";
    uint64_t wasted_bytes = 0;
  };
  const absl::Duration hedge = budgets_.hedge_ceiling;
  const auto ms = [](int64_t n) { return absl::Milliseconds(n); };
  const std::vector<Row> rows = {
      {.outcome = "lost", .peer = hedge + ms(10), .base = ms(200), .wasted_bytes = 4096},
      {.outcome = "won",
       .peer = hedge + ms(500),
       .base = ms(200),
       .wasted = "lost_to_base",
       .wasted_bytes = 4096},
      {.outcome = "dropped",
       .peer = hedge + ms(500),
       .base = ms(900),
       .caller = hedge + ms(100),
       .wasted_bytes = 4096},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.outcome);
    Simulation sim(1);
    PeerWorld world(sim, &sim.executor());
    DeafBase base(world.memory, sim, row.base);
    world.Node().PutFile(FileOf(kDiff), bytes_);
    world.Node().SetLatency(row.peer);
    world.Node().AddFault({.deaf = row.outcome == std::string("won")});
    world.Seed(kDiff, bytes_);
    world.Seed(FileKind::kMetadata, "{}");
    const auto provider = *world.directory->OpenBuild(
        kBuild, {kPeerA}, std::shared_ptr<StorageProvider>(&base, [](StorageProvider*) {}));
    std::stop_source stop;
    sim.SpawnAt(sim.Now() + row.caller, [&] { stop.request_stop(); });
    sim.Spawn([&] {
      ReadOptions options;
      options.cancellation = stop.get_token();
      const auto read = ReadAt(*provider, 0, 4096, options);
      EXPECT_EQ(read.ok(), std::string(row.outcome) != "dropped") << read.status();
    });
    ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
    ExpectHedgesAddUp(world, 1);
    EXPECT_EQ(world.Hedges(row.outcome), 1u);
    EXPECT_EQ(world.Wasted(row.wasted), row.wasted_bytes);
    EXPECT_EQ(world.Bytes(kDiff).wasted, row.wasted_bytes);
  }
}

TEST_F(SourceReaderTest, DirectoryWaitsForHedgesThatStillRun) {
  Simulation sim(1);
  PeerWorld world(sim, &sim.executor());
  DeafBase base(world.memory, sim, absl::Seconds(30));
  world.Node().PutFile(FileOf(kDiff), bytes_);
  world.Node().SetLatency(absl::Seconds(1));
  world.Seed(kDiff, bytes_);
  world.Seed(FileKind::kMetadata, "{}");
  sim.Spawn([&] {
    const absl::Time begun = sim.Now();
    {
      const auto provider = *world.directory->OpenBuild(
          kBuild, {kPeerA}, std::shared_ptr<StorageProvider>(&base, [](StorageProvider*) {}));
      ASSERT_OK(ReadAt(*provider, 0, 4096));
      EXPECT_EQ(sim.Now(), begun + absl::Seconds(1)) << "no read waits for a hedge";
    }
    world.directory.reset();
    EXPECT_EQ(sim.Now(), begun + budgets_.hedge_ceiling + absl::Seconds(30));
  });
  ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
}

TEST_F(SourceReaderTest, HedgeThatWonForACallerWhoLeftIsWasted) {
  StorageFault fault;
  fault.delay = absl::Milliseconds(100);
  // The base has its answer at the very moment when the caller leaves; who is first is chance.
  uint64_t won = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Simulation sim(seed);
    PeerWorld world(sim, &sim.executor());
    world.Node().PutFile(FileOf(kDiff), bytes_);
    world.Node().SetLatency(absl::Seconds(2));
    world.base.AddFault(fault);
    world.Seed(kDiff, bytes_);
    world.Seed(FileKind::kMetadata, "{}");
    const auto provider = world.Open();
    std::stop_source stop;
    const absl::Time at = sim.Now() + budgets_.hedge_ceiling + absl::Milliseconds(100);
    sim.SpawnAt(at, [&] { stop.request_stop(); });
    uint64_t used = 0;
    sim.Spawn([&] {
      ReadOptions options;
      options.cancellation = stop.get_token();
      used = ReadAt(*provider, 0, 4096, options).ok() ? 4096 : 0;
    });
    ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
    ExpectHedgesAddUp(world, 1);
    won += world.Hedges("won");
    EXPECT_EQ(used + world.Wasted("hedge_lost"), world.Hedges("won") * 4096) << seed;
  }
  EXPECT_GT(won, 0u);
}

TEST_F(SourceReaderTest, HedgeThatNeverBeganCostsNoToken) {
  // An executor that never gets to it.
  class Busy final : public Executor {
   public:
    void Run(Priority, std::function<void()> task) override { tasks.push_back(std::move(task)); }
    std::vector<std::function<void()>> tasks;
  } busy;
  Simulation sim(1);
  PeerWorld world(sim, &busy);
  world.Node().PutFile(FileOf(kDiff), bytes_);
  world.Node().SetLatency(absl::Milliseconds(600));
  world.Seed(kDiff, bytes_);
  world.Seed(FileKind::kMetadata, "{}");
  const auto provider = world.Open();
  sim.Spawn([&] {
    for (int i = 0; i < 50; ++i) ASSERT_OK(ReadAt(*provider, 0, 4096));
  });
  ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
  EXPECT_GT(busy.tasks.size(), budgets_.hedge_burst + 1);
  for (const auto& task : busy.tasks) task();
  ExpectHedgesAddUp(world, 0);
  EXPECT_EQ(world.Hedges("refused"), 0u);
}

// When the hedge was ordered, the base had to be equal to what the peer declared. When it begins,
// the peer has been convicted, and nothing is left to be equal to.
TEST_F(SourceReaderTest, HedgeWithNothingToCompareAnyMoreNeedsACompleteUpload) {
  HeldExecutor held;
  Simulation sim(1);
  PeerWorld world(sim, &held);
  world.Node().PutFile(FileOf(kDiff), bytes_);
  world.Seed(kDiff, SampleBytes(kMiB, 9));  // Another object, and no metadata.json.
  const auto provider = world.Open();
  world.Node().AddFault({.heads_too = false, .times = 1, .stall = true});
  world.Node().AddFault({.heads_too = false, .corrupt = true});
  sim.Spawn([&] {
    ASSERT_OK((*provider->OpenSeekable(FileOf(kDiff).ObjectPath()))->Size({}));
    const auto read = ReadAt(*provider, 0, 4096);
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes_.substr(0, 4096));
  });
  sim.SpawnAt(sim.Now() + absl::Seconds(1), [&] {
    ReadOptions options;
    options.deadline = sim.Now() + absl::Milliseconds(500);
    options.sources = SourcePolicy::kPeerOnly;
    EXPECT_EQ(CodeOf(ReadAt(*provider, 0, 4096, options)), absl::StatusCode::kUnavailable);
    world.Node().ClearFaults();
    EXPECT_TRUE(held.RunNext());
  });
  ASSERT_TRUE(sim.Run(absl::InfiniteFuture()));
  EXPECT_EQ(world.Hedges("failed"), 1u);
  EXPECT_EQ(world.Bytes(kDiff).base, 0u);
}

// The base was whole when it was looked at.
TEST_F(SourceReaderTest, HedgeThatEndsBeforeTheFileDoesIsAFailureOfTheBase) {
  Serve(kDiff, bytes_);
  GoRead(bytes_);
  Complete(kDiff, bytes_);
  for (const uint64_t after : {uint64_t{0}, uint64_t{5000}}) {
    A().SetLatency(absl::Milliseconds(700));
    StorageFault fault{.path = FileOf(kDiff).ObjectPath(), .times = 1, .after_bytes = after};
    fault.truncate = true;
    world_.base.AddFault(fault);
    GoRead(bytes_.substr(0, 100'000));
  }
  ExpectHedgesAddUp(world_, world_.Hedges("sent"));
  EXPECT_EQ(world_.Fallbacks("base_failed"), 2u);
  EXPECT_EQ(world_.Wasted("bad_bytes"), 5000u);
}

TEST_F(SourceReaderTest, HedgeThatFailsForAPeerThatFailsIsALeftBase) {
  Serve(kDiff, bytes_);
  A().SetLatency(absl::Milliseconds(700));
  A().AddFault({.times = 1, .error = absl::UnavailableError("gone")});
  GoRead(bytes_, Within(absl::Seconds(10)));
  EXPECT_EQ(world_.Hedges("failed"), 1u);
  EXPECT_GE(world_.Fallbacks("base_missing"), 1u);
}

TEST_F(SourceReaderTest, BaseIsCountedAsLeftThoughEveryPeerFailedBefore) {
  Serve(kDiff, bytes_);
  A().AddFault({.times = 1, .error = absl::UnavailableError("gone")});
  StorageFault fault{.call = StorageCall::kStat, .times = 1};
  fault.error = absl::UnavailableError("base hiccup");
  world_.base.AddFault(fault);
  GoRead(bytes_, Within(absl::Seconds(10)));
  EXPECT_EQ(world_.Fallbacks("base_failed"), 1u);
}

TEST_F(SourceReaderTest, ReadsThatNobodyWaitsForSendNoHedge) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().SetLatency(absl::Milliseconds(700));
  ReadOptions prefetch;
  prefetch.priority = Priority::kPrefetch;
  EXPECT_EQ(GoRead(bytes_, prefetch), absl::Milliseconds(700));
  ExpectHedgesAddUp(world_, 0);
}

TEST_F(SourceReaderTest, HedgeIsNoSourceBeforeTheUploadIsConfirmed) {
  Serve(kDiff, bytes_);
  world_.Seed(kDiff, bytes_);  // Left by something else: no metadata.json, nothing declared.
  A().SetLatency(absl::Seconds(2));
  EXPECT_EQ(GoRead(bytes_), absl::Seconds(2));
  EXPECT_EQ(world_.Bytes(kDiff).base, 0u);
}

TEST_F(SourceReaderTest, HedgesKeepToTheirShare) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().SetLatency(absl::Milliseconds(800));
  constexpr int kReads = 400;
  Go([&] {
    for (int i = 0; i < kReads; ++i) ASSERT_OK(ReadAt(*provider_, 0, 4096));
  });
  EXPECT_LE(static_cast<double>(world_.Hedges("sent")),
            budgets_.hedge_burst + budgets_.hedge_share * kReads);
  EXPECT_GT(world_.Hedges("refused"), 0u);
}

TEST_F(SourceReaderTest, HealthyPeerIsHardlyEverHedged) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  constexpr int kReads = 2000;
  Go([&] {
    std::minstd_rand random(7);
    for (int i = 0; i < kReads; ++i) {
      A().SetLatency(absl::Microseconds(500 + random() % 15'000));
      ASSERT_OK(ReadAt(*provider_, 0, 4096));
    }
  });
  EXPECT_LT(world_.Hedges("sent"), kReads / 50);  // 2 %.
  EXPECT_GT(world_.Bytes(kDiff).peer, uint64_t{kReads} * 4096 * 98 / 100);
}

TEST_F(SourceReaderTest, ColdNodeIsNotLockedOut) {
  // Slow when nobody has talked to it, and quick once it was let finish a few times.
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().SetLatency(absl::Milliseconds(450));
  Go([&] {
    for (int i = 0; i < 5; ++i) ASSERT_OK(ReadAt(*provider_, 0, 4096));
    A().SetLatency(absl::Milliseconds(2));
    for (int i = 0; i < 200; ++i) ASSERT_OK(ReadAt(*provider_, 0, 4096));
    // Cold again: time-outs alone must be able to teach patience.
    A().SetLatency(absl::Milliseconds(300));
    for (int i = 0; i < 100; ++i) ASSERT_OK(ReadAt(*provider_, 0, 4096));
    const uint64_t before = world_.Bytes(kDiff).peer;
    for (int i = 0; i < 10; ++i) ASSERT_OK(ReadAt(*provider_, 0, 4096));
    EXPECT_EQ(world_.Bytes(kDiff).peer, before + 10 * 4096);
  });
  EXPECT_EQ(world_.Breaker("open"), 0u);
}

TEST_F(SourceReaderTest, DeadPeerIsNotPaidForByEveryRead) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  GoRead(bytes_);
  A().Kill();
  const uint64_t before = A().calls();
  Go([&] {
    for (int i = 0; i < 100; ++i) ASSERT_OK(ReadAt(*provider_, 0, 4096));
  });
  EXPECT_EQ(A().calls() - before, budgets_.breaker_failures);
  EXPECT_EQ(world_.Breaker("open"), 1u);
  // A probe now and then reads real bytes, and brings a peer that is back into use.
  A().Revive();
  Go([&] { sim_.SleepUntil(sim_.Now() + budgets_.breaker_open); });
  const uint64_t peer_bytes = world_.Bytes(kDiff).peer;
  GoRead(bytes_);
  GoRead(bytes_);
  EXPECT_EQ(world_.Bytes(kDiff).peer, peer_bytes + 2 * bytes_.size());
  EXPECT_EQ(world_.Breaker("closed"), 1u);
}

TEST_F(SourceReaderTest, PeerThatStallsEachTimeOpensItsBreaker) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  A().AddFault({.after_bytes = 4096, .stall = true});
  for (uint32_t i = 0; i < budgets_.breaker_failures; ++i) GoRead(bytes_);
  EXPECT_EQ(world_.Breaker("open"), 1u);
  EXPECT_EQ(GoRead(bytes_), absl::ZeroDuration());
}

// --- Blobs ---------------------------------------------------------------------------------------

// Counts what it is given.
class CheckingSink final : public ByteSink {
 public:
  absl::Status Write(std::string_view data) override {
    bytes += data;
    return absl::OkStatus();
  }
  std::string bytes;
};

TEST_F(SourceReaderTest, HeaderIsReadAgainWholeFromTheNextSource) {
  const FileKind kind = FileKind::kMemfileHeader;
  Serve(kind, bytes_);
  Complete(kind, bytes_);
  A().AddFault({.after_bytes = 400'000, .error = absl::UnavailableError("gone")});
  Go([&] {
    CheckingSink sink;
    ASSERT_OK((*provider_->OpenBlob(FileOf(kind).ObjectPath()))->WriteTo(sink, {}));
    EXPECT_TRUE(sink.bytes == bytes_);
  });
  EXPECT_EQ(world_.Bytes(kind).base, bytes_.size());
  EXPECT_EQ(world_.metrics.CounterValue("peerchunk_wasted_bytes_total", {{"reason", "restart"}}),
            400'000u);
}

// All that a pause accepts can be read, and no more is taken into memory.
TEST_F(SourceReaderTest, HeaderOfTheLargestSizeIsReadWhole) {
  for (const auto& [kind, size] : {std::pair(FileKind::kMemfileHeader, kMaxHeaderFileBytes),
                                   std::pair(FileKind::kRootfsHeader, kMaxHeaderFileBytes + 1)}) {
    SCOPED_TRACE(size);
    A().PutFile(FileOf(kind), std::string(1, '\0'));
    A().AddFault({.file = kind, .alter = [size = size](PeerMessage& m) {  // Of zeros alone.
                    m.head->total_size = m.extent->length = m.next_offset = size;
                    m.head->file_crc32c = Crc32cOfZeros(size);
                  }});
    Go([&, kind = kind, size = size] {
      CheckingSink sink;
      const absl::Status read =
          (*provider_->OpenBlob(FileOf(kind).ObjectPath()))->WriteTo(sink, {});
      EXPECT_EQ(read.code(), size <= kMaxHeaderFileBytes ? absl::StatusCode::kOk
                                                         : absl::StatusCode::kResourceExhausted);
      EXPECT_EQ(sink.bytes.size(), size <= kMaxHeaderFileBytes ? size : 0);
    });
  }
}

TEST_F(SourceReaderTest, HeaderWithAnotherChecksumThanDeclaredIsNeverSeen) {
  // Each extent is right by its own checksum; the whole is not.
  const FileKind kind = FileKind::kMemfileHeader;
  std::string wrong = bytes_;
  wrong[5] ^= 1;
  Serve(kind, wrong);
  Complete(kind, bytes_);
  A().AddFault({.alter = [this](PeerMessage& m) {
    if (m.head) m.head->file_crc32c = Crc32c(bytes_);
  }});
  Go([&] {
    CheckingSink sink;
    ASSERT_OK((*provider_->OpenBlob(FileOf(kind).ObjectPath()))->WriteTo(sink, {}));
    EXPECT_TRUE(sink.bytes == bytes_);
  });
  EXPECT_EQ(world_.Quarantines("bad_bytes"), 1u);
}

TEST_F(SourceReaderTest, SnapfileGoesOnAtTheByteReached) {
  const FileKind kind = FileKind::kSnapfile;
  Serve(kind, bytes_);
  Complete(kind, bytes_);
  A().AddFault({.after_bytes = 400'000, .error = absl::UnavailableError("gone")});
  Go([&] {
    CheckingSink sink;
    ASSERT_OK((*provider_->OpenBlob(FileOf(kind).ObjectPath()))->WriteTo(sink, {}));
    EXPECT_TRUE(sink.bytes == bytes_);
  });
  EXPECT_EQ(world_.Bytes(kind).peer, 400'000u);
  EXPECT_EQ(world_.Bytes(kind).base, bytes_.size() - 400'000);
}

TEST_F(SourceReaderTest, SnapfileThatIsWrongAsAWholeIsNotHandedOutWhole) {
  const FileKind kind = FileKind::kSnapfile;
  std::string wrong = bytes_;
  wrong[5] ^= 1;
  Serve(kind, wrong);
  Complete(kind, bytes_);
  A().AddFault({.alter = [this](PeerMessage& m) {
    if (m.head) m.head->file_crc32c = Crc32c(bytes_);
  }});
  Go([&] {
    CheckingSink sink;
    const auto blob = provider_->OpenBlob(FileOf(kind).ObjectPath());
    EXPECT_EQ(CodeOf((*blob)->WriteTo(sink, {})), absl::StatusCode::kDataLoss);
    EXPECT_LT(sink.bytes.size(), bytes_.size());
    CheckingSink again;
    ASSERT_OK((*blob)->WriteTo(again, {}));
    EXPECT_TRUE(again.bytes == bytes_);
  });
}

// Which of two gave the wrong byte nobody can tell: neither is asked first any more.
TEST_F(SourceReaderTest, SnapfileOfTwoPeersThatIsWrongAsAWholePutsBothInDoubt) {
  const FileKind kind = FileKind::kSnapfile;
  UsePeers({kPeerA, kPeerB});
  std::string wrong = bytes_;
  wrong[5] ^= 1;
  Serve(kind, wrong);
  B().PutFile(FileOf(kind), bytes_);
  Complete(kind, bytes_);
  A().AddFault({.alter = [this](PeerMessage& m) {
    if (m.head) m.head->file_crc32c = Crc32c(bytes_);
  }});
  A().SetBytesPerSecond(kMiB);
  At(absl::Milliseconds(400), [&] { A().Kill(); });
  Go([&] {
    EXPECT_EQ(CodeOf(ReadBlob(*provider_, kind)), absl::StatusCode::kDataLoss);
    EXPECT_GT(B().bytes_sent(), 0u);
    EXPECT_EQ(world_.Quarantines("bad_bytes"), 2u);
    const uint64_t calls = B().calls();
    const auto read = ReadBlob(*provider_, kind);
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes_);
    EXPECT_EQ(B().calls(), calls);
  });
}

TEST_F(SourceReaderTest, WrongByteOfAPeerThatWasLeftInTheMiddleIsNotOnlyTheLastOnesFault) {
  const FileKind kind = FileKind::kSnapfile;
  const std::string c = "10.0.0.3:7070";
  UsePeers({kPeerA, kPeerB, c});
  std::string wrong = bytes_;
  wrong[5] ^= 1;
  Serve(kind, bytes_);
  B().PutFile(FileOf(kind), wrong);
  B().AddFault({.alter = [this](PeerMessage& m) {
    if (m.head) m.head->file_crc32c = Crc32c(bytes_);
  }});
  B().SetBytesPerSecond(kMiB);
  world_.Node(c).PutFile(FileOf(kind), bytes_);
  Complete(kind, bytes_);
  Go([&] {
    EXPECT_OK((*provider_->OpenBlob(FileOf(kind).ObjectPath()))->Stat({}));  // A declares.
    A().Kill();
  });
  At(absl::Milliseconds(400), [&] { B().Kill(); });
  Go([&] { EXPECT_EQ(CodeOf(ReadBlob(*provider_, kind)), absl::StatusCode::kDataLoss); });
  EXPECT_EQ(world_.Quarantines("bad_bytes"), 3u) << "who declared, and who gave bytes";
}

// The declarer of a wrong checksum is no better than the sender of a wrong byte.
TEST_F(SourceReaderTest, ChecksumThatNobodysBytesHaveIsDropped) {
  const FileKind kind = FileKind::kMemfileHeader;
  UsePeers({kPeerA, kPeerB});
  B().PutFile(FileOf(kind), bytes_);
  Serve(kind, bytes_);
  A().AddFault({.times = 1, .alter = [](PeerMessage& m) {
                  if (m.head) ++*m.head->file_crc32c;
                }});
  A().AddFault({.error = absl::UnavailableError("gone")});
  Go([&] {
    EXPECT_OK((*provider_->OpenBlob(FileOf(kind).ObjectPath()))->Stat({}));  // A declares.
    B().AddFault({.times = 1, .alter = [](PeerMessage& m) {
                    if (m.head) m.head->file_crc32c.reset();
                  }});
    const auto read = ReadBlob(*provider_, kind, Within(absl::Seconds(5)));
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes_);
  });
  EXPECT_EQ(world_.Quarantines("bad_bytes"), 2u);
}

TEST_F(SourceReaderTest, HeaderCostsOneRoundTrip) {
  Serve(FileKind::kMemfileHeader, bytes_);
  Go([&] { EXPECT_OK(ReadBlob(*provider_, FileKind::kMemfileHeader)); });
  EXPECT_EQ(A().calls(), 1u);
}

// --- What the caller wants -----------------------------------------------------------------------

TEST_F(SourceReaderTest, CallerMayTurnFallbackOff) {
  Serve(kDiff, bytes_);
  Complete(kDiff, bytes_);
  ReadOptions peer_only = Within(absl::Seconds(1));
  peer_only.sources = SourcePolicy::kPeerOnly;
  GoRead(bytes_, peer_only);
  A().Kill();
  peer_only = Within(absl::Seconds(1));
  peer_only.sources = SourcePolicy::kPeerOnly;
  EXPECT_EQ(GoFail(peer_only).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(world_.Bytes(kDiff).base, 0u);

  const uint64_t calls = A().calls();
  ReadOptions base_only;
  base_only.sources = SourcePolicy::kBaseOnly;
  GoRead(bytes_, base_only);
  EXPECT_EQ(A().calls(), calls);
}

TEST_F(SourceReaderTest, PeerOnlyReadsADurableBuildFromThePeer) {
  Serve(kDiff, bytes_);
  A().SetState(kBuild, BuildState::kDurable);
  ReadOptions peer_only = Within(absl::Seconds(1));
  peer_only.sources = SourcePolicy::kPeerOnly;
  GoRead(bytes_, peer_only);
}

TEST_F(SourceReaderTest, RangePastTheEndIsTheCallersErrorNotThePeers) {
  Serve(kDiff, bytes_);
  for (const bool size_known : {false, true}) {
    SCOPED_TRACE(size_known);
    Go([&] {
      for (const uint64_t offset : {uint64_t{kMiB + 1}, UINT64_MAX - 5, UINT64_MAX}) {
        EXPECT_EQ(CodeOf(ReadAt(*provider_, offset, 10)), absl::StatusCode::kOutOfRange);
      }
      const auto at_end = ReadAt(*provider_, kMiB, 10);
      ASSERT_OK(at_end);
      EXPECT_EQ(*at_end, "");
    });
  }
  EXPECT_EQ(world_.Quarantines("bad_range_answer"), 0u);
}

TEST_F(SourceReaderTest, VersionOfAPeersFileCanBePinned) {
  Serve(FileKind::kMetadata, "one");
  Go([&] {
    const auto blob = provider_->OpenBlob(FileOf(FileKind::kMetadata).ObjectPath());
    const auto stat = (*blob)->Stat({});
    ASSERT_OK(stat);
    ReadOptions pinned;
    pinned.version = stat->version;
    const auto read = ReadBlob(*provider_, FileKind::kMetadata, pinned);
    ASSERT_OK(read);
    EXPECT_EQ(*read, "one");
    A().PutFile(FileOf(FileKind::kMetadata), "two!", 1);
    ASSERT_OK(ReadBlob(*provider_, FileKind::kMetadata));
    EXPECT_EQ(CodeOf(ReadBlob(*provider_, FileKind::kMetadata, pinned)),
              absl::StatusCode::kAborted);
  });
}

TEST_F(SourceReaderTest, DirectoryWithoutAddressesReadsTheBaseAlone) {
  UsePeers({});
  world_.Seed(kDiff, bytes_);
  GoRead(bytes_);
  EXPECT_EQ(world_.Bytes(kDiff).base, bytes_.size());
  EXPECT_EQ(GoFail({}).code(), absl::StatusCode::kOk);
  world_.memory.Remove(FileOf(kDiff).ObjectPath());
  EXPECT_EQ(GoFail({}).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace peerchunk::test
