// The scenarios of the system that this decorator comes from, message by message over a mocked
// wire.
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "tests/peer/peer_fixture.h"
#include "tests/support/mock_chunk_service_client.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk::test {
namespace {

using testing::_;
using testing::AllOf;
using testing::ByMove;
using testing::Field;
using testing::NiceMock;
using testing::Return;

struct Script {
  std::deque<PeerMessage> messages;
  absl::Status end;
  std::deque<std::string> bytes;
  std::deque<std::string_view> pieces;

  Script& Head(FileHead head) {
    messages.push_back({.head = head});
    return *this;
  }
  Script& Data(uint64_t offset, std::string data) {
    bytes.push_back(std::move(data));
    pieces.push_back(bytes.back());
    messages.push_back({.extent = PeerExtent{.offset = offset,
                                             .length = bytes.back().size(),
                                             .crc32c = Crc32c(bytes.back()),
                                             .pieces = absl::MakeConstSpan(&pieces.back(), 1)}});
    return *this;
  }
  Script& Last(uint64_t next, BuildState state = BuildState::kUploading) {
    messages.push_back(
        {.last = true,
         .status = {.state = state, .incarnation = 1, .sequence = static_cast<uint64_t>(state)},
         .next_offset = next});
    return *this;
  }
  Script& End(absl::Status status) {
    end = std::move(status);
    return *this;
  }
};

std::unique_ptr<PeerStream> Play(std::shared_ptr<Script> script) {
  auto stream = std::make_unique<NiceMock<MockPeerStream>>();
  ON_CALL(*stream, Next(_))
      .WillByDefault([script](absl::Time) -> absl::StatusOr<std::optional<PeerMessage>> {
        if (script->messages.empty()) {
          if (!script->end.ok()) return script->end;
          return std::nullopt;
        }
        PeerMessage message = script->messages.front();
        script->messages.pop_front();
        return std::make_optional(message);
      });
  return stream;
}

FileHead Head(Availability availability, uint64_t size = 0,
              BuildState state = BuildState::kUploading) {
  FileHead head{.availability = availability,
                .status = {.state = state, .incarnation = 1, .sequence = 1},
                .total_size = size};
  return head;
}

std::shared_ptr<Script> Say(Availability availability, uint64_t size = 0) {
  auto script = std::make_shared<Script>();
  script->Head(Head(availability, size));
  script->messages.back().last = true;
  return script;
}

class UpstreamTest : public testing::Test {
 protected:
  UpstreamTest() {
    clock_.AdvanceOnWait();
    ON_CALL(*connector_, Connect(_, _)).WillByDefault(Return(client_));
    ON_CALL(*client_, IsConnected()).WillByDefault(Return(true));
    directory_ = *PeerDirectory::Create({.policy = *AddressPolicy::Create({}),
                                         .connector = connector_,
                                         .clock = &clock_,
                                         .metrics = &metrics_});
    provider_ = *directory_->OpenBuild(kBuild, {kPeerA}, base_);
  }

  void Expect(FileKind kind, std::shared_ptr<Script> script) {
    EXPECT_CALL(*client_, GetBuildFile(Field(&PeerRequest::file, FileOf(kind)), _))
        .WillOnce(Return(ByMove(Play(std::move(script)))))
        .RetiresOnSaturation();
  }
  void ExpectError(FileKind kind, absl::Status status) {
    auto script = std::make_shared<Script>();
    script->End(std::move(status));
    Expect(kind, std::move(script));
  }
  void Seed(FileKind kind, std::string bytes) {
    base_->Seed(FileOf(kind).ObjectPath(), std::move(bytes));
  }
  absl::StatusOr<bool> Exists(FileKind kind) {
    return (*provider_->OpenBlob(FileOf(kind).ObjectPath()))->Exists({});
  }
  absl::StatusOr<uint64_t> Size() {
    return (*provider_->OpenSeekable(FileOf(FileKind::kMemfile).ObjectPath()))->Size({});
  }

  SimulatedClock clock_;
  Metrics metrics_;
  std::shared_ptr<NiceMock<MockChunkServiceClient>> client_ =
      std::make_shared<NiceMock<MockChunkServiceClient>>();
  std::shared_ptr<NiceMock<MockChunkServiceConnector>> connector_ =
      std::make_shared<NiceMock<MockChunkServiceConnector>>();
  std::shared_ptr<MemoryStorageProvider> base_ = std::make_shared<MemoryStorageProvider>(clock_);
  std::unique_ptr<PeerDirectory> directory_;
  std::shared_ptr<StorageProvider> provider_;
};

TEST_F(UpstreamTest, BlobComesFromThePeer) {
  auto script = std::make_shared<Script>();
  script->Head(Head(Availability::kAvailable, 6)).Data(0, "abc").Data(3, "def").Last(6);
  Expect(FileKind::kSnapfile, script);
  const auto read = ReadBlob(*provider_, FileKind::kSnapfile);
  ASSERT_OK(read);
  EXPECT_EQ(*read, "abcdef");
}

TEST_F(UpstreamTest, BlobThatThePeerHasNotComesFromTheBase) {
  Seed(FileKind::kSnapfile, "from the base");
  Expect(FileKind::kSnapfile, Say(Availability::kNotAvailable));
  const auto read = ReadBlob(*provider_, FileKind::kSnapfile);
  ASSERT_OK(read);
  EXPECT_EQ(*read, "from the base");
}

TEST_F(UpstreamTest, BlobComesFromTheBaseWhenThePeerFails) {
  Seed(FileKind::kSnapfile, "from the base");
  Seed(FileKind::kMetadata, "{}");
  ExpectError(FileKind::kSnapfile, absl::InternalError("peer error"));
  const auto read = ReadBlob(*provider_, FileKind::kSnapfile);
  ASSERT_OK(read);
  EXPECT_EQ(*read, "from the base");
}

TEST_F(UpstreamTest, BlobUnderWayWhenTheBuildTurnsDurableIsReadToItsEnd) {
  Seed(FileKind::kSnapfile, "abcdef");
  auto script = std::make_shared<Script>();
  script->Head(Head(Availability::kAvailable, 6))
      .Data(0, "abc")
      .Data(3, "def")
      .Last(6, BuildState::kDurable);
  EXPECT_CALL(*client_, GetBuildFile(_, _)).WillOnce(Return(ByMove(Play(script))));
  const auto first = ReadBlob(*provider_, FileKind::kSnapfile);
  ASSERT_OK(first);
  EXPECT_EQ(*first, "abcdef");
  EXPECT_TRUE(script->messages.empty());
  EXPECT_EQ(directory_->BytesOf(FileOf(FileKind::kSnapfile)).base, 0u);
  EXPECT_TRUE(directory_->KnownDurable(kBuild));
  const auto second = ReadBlob(*provider_, FileKind::kSnapfile);
  ASSERT_OK(second);
  EXPECT_EQ(*second, "abcdef");
  EXPECT_EQ(directory_->BytesOf(FileOf(FileKind::kSnapfile)).base, 6u);
}

TEST_F(UpstreamTest, StreamUnderWayWhenTheBuildTurnsDurableIsReadToItsEnd) {
  Seed(FileKind::kMemfile, "abcdef");
  auto script = std::make_shared<Script>();
  script->Head(Head(Availability::kAvailable, 6))
      .Data(0, "abc")
      .Data(3, "def")
      .Last(6, BuildState::kDurable);
  EXPECT_CALL(*client_, GetBuildFile(_, _)).WillOnce(Return(ByMove(Play(script))));
  const auto first = ReadRange(*provider_, 0, UINT64_MAX);
  ASSERT_OK(first);
  EXPECT_EQ(*first, "abcdef");
  EXPECT_TRUE(script->messages.empty());
  EXPECT_EQ(directory_->BytesOf(FileOf(FileKind::kMemfile)).base, 0u);
  // What an earlier read learned, the next one knows: the peer is not asked again.
  EXPECT_TRUE(directory_->KnownDurable(kBuild));
  const auto second = ReadRange(*provider_, 0, UINT64_MAX);
  ASSERT_OK(second);
  EXPECT_EQ(*second, "abcdef");
  EXPECT_EQ(directory_->BytesOf(FileOf(FileKind::kMemfile)).base, 6u);
}

TEST_F(UpstreamTest, ExistsWhenThePeerHasIt) {
  auto script = std::make_shared<Script>();
  script->Head(Head(Availability::kAvailable, 6)).Last(0);
  Expect(FileKind::kSnapfile, script);
  const auto exists = Exists(FileKind::kSnapfile);
  ASSERT_OK(exists);
  EXPECT_TRUE(*exists);
}

TEST_F(UpstreamTest, ExistsIsTheBasesAnswerWhenThePeerHasNot) {
  Expect(FileKind::kSnapfile, Say(Availability::kNotAvailable));
  auto exists = Exists(FileKind::kSnapfile);
  // Asked last, once more, since the base has nothing: a paused peer is not given up.
  ASSERT_OK(exists);
  EXPECT_FALSE(*exists);
  Seed(FileKind::kSnapfile, "x");
  exists = Exists(FileKind::kSnapfile);
  ASSERT_OK(exists);
  EXPECT_TRUE(*exists);
}

TEST_F(UpstreamTest, ExistsAsksTheBaseWhenTheBuildIsDurable) {
  Seed(FileKind::kSnapfile, "x");
  Expect(FileKind::kSnapfile, Say(Availability::kUseStorage));
  const auto exists = Exists(FileKind::kSnapfile);
  ASSERT_OK(exists);
  EXPECT_TRUE(*exists);
}

TEST_F(UpstreamTest, FileThatIsAbsentByDesignIsNotLookedForElsewhere) {
  Seed(FileKind::kSnapfile, "never read");
  Expect(FileKind::kSnapfile, Say(Availability::kAbsent));
  EXPECT_EQ(CodeOf(ReadBlob(*provider_, FileKind::kSnapfile)), absl::StatusCode::kNotFound);
  Expect(FileKind::kSnapfile, Say(Availability::kAbsent));
  const auto exists = Exists(FileKind::kSnapfile);
  ASSERT_OK(exists);
  EXPECT_FALSE(*exists);
}

TEST_F(UpstreamTest, SizeIsThePeersAndAskedOnce) {
  auto script = std::make_shared<Script>();
  script->Head(Head(Availability::kAvailable, 12345)).Last(0);
  EXPECT_CALL(*client_, GetBuildFile(AllOf(Field(&PeerRequest::length, std::optional<uint64_t>(0)),
                                           Field(&PeerRequest::relays_left, 1u)),
                                     _))
      .WillOnce(Return(ByMove(Play(script))));
  for (int i = 0; i < 2; ++i) {
    const auto size = Size();
    ASSERT_OK(size);
    EXPECT_EQ(*size, 12345u);
  }
}

TEST_F(UpstreamTest, SizeIsTheBasesWhenThePeerHasNot) {
  Seed(FileKind::kMemfile, "12345");
  Expect(FileKind::kMemfile, Say(Availability::kNotAvailable));
  const auto size = Size();
  ASSERT_OK(size);
  EXPECT_EQ(*size, 5u);
}

TEST_F(UpstreamTest, SizeIsTheBasesWhenThePeerFails) {
  Seed(FileKind::kMemfile, "12345");
  Seed(FileKind::kMetadata, "{}");
  ExpectError(FileKind::kMemfile, absl::UnavailableError("connection refused"));
  const auto size = Size();
  ASSERT_OK(size);
  EXPECT_EQ(*size, 5u);
}

TEST_F(UpstreamTest, RangeComesFromThePeer) {
  auto script = std::make_shared<Script>();
  script->Head(Head(Availability::kAvailable, 10)).Data(0, "cdef").Last(4);
  EXPECT_CALL(*client_, GetBuildFile(AllOf(Field(&PeerRequest::offset, 0u),
                                           Field(&PeerRequest::length, std::optional<uint64_t>(4))),
                                     _))
      .WillOnce(Return(ByMove(Play(script))));
  const auto read = ReadRange(*provider_, 0, 4);
  ASSERT_OK(read);
  EXPECT_EQ(*read, "cdef");
}

TEST_F(UpstreamTest, RangeGoesOnInTheBaseFromTheByteReached) {
  Seed(FileKind::kMemfile, "abcdefghij");
  auto script = std::make_shared<Script>();
  FileHead head = Head(Availability::kAvailable, 10);
  head.file_crc32c = Crc32c("abcdefghij");
  script->Head(head).Data(0, "abcd").End(absl::InternalError("peer error"));
  Expect(FileKind::kMemfile, script);
  const auto read = ReadRange(*provider_, 0, UINT64_MAX);
  ASSERT_OK(read);
  EXPECT_EQ(*read, "abcdefghij");
  const SourceBytes bytes = directory_->BytesOf(FileOf(FileKind::kMemfile));
  EXPECT_EQ(bytes.peer, 4u);
  EXPECT_EQ(bytes.base, 6u);
}

TEST_F(UpstreamTest, RangeOfADurableBuildComesFromTheBase) {
  Seed(FileKind::kMemfile, "abcdefghij");
  Expect(FileKind::kMemfile, Say(Availability::kUseStorage, 10));
  for (int i = 0; i < 3; ++i) {
    const auto read = ReadRange(*provider_, 0, 5);
    ASSERT_OK(read);
    EXPECT_EQ(*read, "abcde");
  }
}

TEST_F(UpstreamTest, OtherPathsOtherBuildsAndWritesGoToTheBase) {
  EXPECT_CALL(*client_, GetBuildFile(_, _)).Times(0);
  const std::string other = "bbbbbbbb-0000-4000-8000-000000000002/memfile";
  base_->Seed(other, "other build");
  base_->Seed("fc/kernel", "a kernel");
  base_->Seed(kBuild.ToString() + "/memfile.zstd", "another name");
  for (const auto& [path, bytes] : std::vector<std::pair<std::string, std::string>>{
           {other, "other build"},
           {"fc/kernel", "a kernel"},
           {kBuild.ToString() + "/memfile.zstd", "another name"}}) {
    std::string out(100, ' ');
    const auto read = (*provider_->OpenSeekable(path))->ReadAt(0, absl::MakeSpan(out), {});
    ASSERT_OK(read) << path;
    EXPECT_EQ(out.substr(0, *read), bytes);
  }
  ASSERT_OK((*provider_->OpenBlob(FileOf(FileKind::kSnapfile).ObjectPath()))->Put("new", {}));
  EXPECT_EQ(base_->Bytes(FileOf(FileKind::kSnapfile).ObjectPath()), "new");
  const auto deleted = provider_->DeleteObjectsWithPrefix(kBuild.ToString() + "/", {});
  ASSERT_OK(deleted);
  EXPECT_EQ(*deleted, 2u);
}

TEST_F(UpstreamTest, RefusedAddressOpensNothingAndDialsNothing) {
  EXPECT_CALL(*connector_, Connect(_, _)).Times(0);
  EXPECT_EQ(CodeOf(directory_->OpenBuild(kBuild, {kPeerA, "169.254.169.254:80"}, base_)),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf(directory_->OpenBuild(kBuild, {"localhost:7070"}, base_)),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(directory_->OpenBuild(BuildId(), {}, base_)),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(UpstreamTest, LanesKeepDemandApartFromBulk) {
  // The other end is told too: its demand comes first there as here.
  const auto expect = [&](PeerLane lane, int reads) {
    const PeerLane other = lane == PeerLane::kBulk ? PeerLane::kDemand : PeerLane::kBulk;
    EXPECT_CALL(*connector_, Connect(_, other)).Times(0);
    EXPECT_CALL(*connector_, Connect(_, lane))  // Once for all reads of a provider in a lane.
        .WillOnce(Return(client_));
    EXPECT_CALL(*client_, GetBuildFile(Field(&PeerRequest::prefetch, lane == PeerLane::kBulk), _))
        .Times(reads)
        .WillRepeatedly(
            [](const PeerRequest&, auto&&) { return Play(Say(Availability::kNotAvailable)); });
  };
  expect(PeerLane::kDemand, 5);
  ReadAt(*provider_, 0, 4096).status().IgnoreError();
  ReadRange(*provider_, 0, 256 * 1024).status().IgnoreError();
  ReadBlob(*provider_, FileKind::kMemfileHeader).status().IgnoreError();
  ReadBlob(*provider_, FileKind::kMetadata).status().IgnoreError();
  Size().status().IgnoreError();
  testing::Mock::VerifyAndClearExpectations(connector_.get());
  testing::Mock::VerifyAndClearExpectations(client_.get());
  expect(PeerLane::kBulk, 3);
  ReadOptions prefetch;
  prefetch.priority = Priority::kPrefetch;
  ReadAt(*provider_, 0, 4096, prefetch).status().IgnoreError();
  ReadRange(*provider_, 0, UINT64_MAX).status().IgnoreError();
  ReadBlob(*provider_, FileKind::kSnapfile).status().IgnoreError();
}

TEST_F(UpstreamTest, RelaysAreCutToOne) {
  for (const auto& [given, sent] :
       std::vector<std::pair<uint32_t, uint32_t>>{{0, 0}, {1, 1}, {9, 1}}) {
    EXPECT_CALL(*client_, GetBuildFile(Field(&PeerRequest::relays_left, sent), _))
        .WillOnce(Return(ByMove(Play(Say(Availability::kAbsent)))));
    ReadOptions options;
    options.relays_left = given;
    EXPECT_EQ(CodeOf(ReadAt(*provider_, 0, 10, options)), absl::StatusCode::kNotFound);
  }
}

}  // namespace
}  // namespace peerchunk::test
