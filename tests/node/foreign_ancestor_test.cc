#include "node/foreign_ancestor.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/mock_chunk_service_client.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {
namespace {

using testing::_;
using testing::HasSubstr;
using testing::NiceMock;

class ForeignAncestorTest : public testing::Test {
 protected:
  static PeerAddress Address(const std::string& text) {
    return *AddressPolicy::Create({})->Check(text);
  }
  static FileHead Head(Availability availability, BuildState state) {
    FileHead head;
    head.availability = availability;
    head.status.state = state;
    return head;
  }
  // A source that answers so; `answer` is asked with each call.
  void AddSource(std::function<absl::StatusOr<FileHead>(const PeerCallOptions&)> answer) {
    sources_.push_back(Address("10.0.0." + std::to_string(sources_.size() + 1) + ":7070"));
    auto client = std::make_shared<NiceMock<MockChunkServiceClient>>();
    ON_CALL(*client, GetBuildFileInfo(_, _))
        .WillByDefault([this, answer](const PeerRequest& request, const PeerCallOptions& options) {
          EXPECT_EQ(request.file.build, build_.id);
          return answer(options);
        });
    ON_CALL(connector_, Connect(sources_.back(), _)).WillByDefault(testing::Return(client));
  }
  void AddSource(absl::StatusOr<FileHead> answer) {
    AddSource([answer](const PeerCallOptions&) { return answer; });
  }
  void Upload(const TestBuild& build) {
    for (const auto& [kind, bytes] : build.files) {
      memory_.Seed(BuildFileId{build.id, kind}.ObjectPath(), bytes);
    }
  }
  absl::StatusOr<bool> Durable() {
    return ForeignAncestorIsDurable(build_.id, sources_, connector_, base_, stop_.get_token());
  }
  void Expect(bool durable) {
    const auto answer = Durable();
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(*answer, durable);
  }

  TestBuild build_ = MakeTestBuild({});
  std::vector<PeerAddress> sources_;
  NiceMock<MockChunkServiceConnector> connector_;
  MemoryStorageProvider memory_;
  FaultStorageProvider base_{memory_};
  std::stop_source stop_;
};

TEST_F(ForeignAncestorTest, EachAnswerOfASourceCountsForWhatItSays) {
  struct Case {
    absl::StatusOr<FileHead> answer;
    bool durable_before;  // While the base has nothing,
    bool durable_after;   // and once it has everything.
  };
  const std::vector<Case> cases = {
      {absl::UnavailableError("gone"), false, true},
      {absl::DeadlineExceededError("silent"), false, true},
      // Never had it; merely loaded it; is done with it and has evicted it.
      {Head(Availability::kNotAvailable, BuildState::kUnknown), false, true},
      {Head(Availability::kAvailable, BuildState::kUnknown), false, true},
      {Head(Availability::kNotYet, BuildState::kUnknown), false, true},
      {Head(Availability::kAvailable, BuildState::kLocal), false, false},
      {Head(Availability::kAvailable, BuildState::kUploading), false, false},
      {Head(Availability::kAvailable, BuildState::kFailed), false, false},
      {Head(Availability::kUseStorage, BuildState::kDurable), true, true},
      {Head(Availability::kAvailable, BuildState::kDurable), true, true},
  };
  for (const bool uploaded : {false, true}) {
    if (uploaded) Upload(build_);
    for (size_t i = 0; i < cases.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "case " << i << " uploaded " << uploaded);
      sources_.clear();
      AddSource(cases[i].answer);
      Expect(uploaded ? cases[i].durable_after : cases[i].durable_before);
    }
  }
}

TEST_F(ForeignAncestorTest, OneSourceThatKnowsIsEnough) {
  AddSource(absl::UnavailableError("gone"));
  AddSource(Head(Availability::kNotAvailable, BuildState::kUnknown));
  AddSource(Head(Availability::kAvailable, BuildState::kUploading));
  Upload(build_);
  Expect(false);
  AddSource(Head(Availability::kUseStorage, BuildState::kDurable));
  Expect(true);
}

TEST_F(ForeignAncestorTest, WhatItsSourceDiscardedIsLostUnlessTheBaseHasIt) {
  AddSource(Head(Availability::kNotAvailable, BuildState::kFailed));
  const auto lost = Durable();
  EXPECT_TRUE(absl::IsDataLoss(lost.status())) << lost.status();
  EXPECT_THAT(std::string(lost.status().message()), HasSubstr("10.0.0.1:7070 discarded"));
  Upload(build_);
  Expect(true);
  base_.AddFault({.call = StorageCall::kStat, .error = absl::UnavailableError("no answer")});
  EXPECT_TRUE(absl::IsUnavailable(Durable().status())) << "could not tell is not lost";
}

TEST_F(ForeignAncestorTest, TheBaseMustHaveEveryFile) {
  Expect(false);
  for (const TestBuild& build : {MakeTestBuild({}), MakeTestBuild({.memfile_bytes = 0})}) {
    build_ = build;
    for (const auto& missing : build.files) {
      Upload(build);
      Expect(true);
      memory_.Remove(BuildFileId{build.id, missing.first}.ObjectPath());
      Expect(false);
    }
    for (const auto& file : build.files) {
      memory_.Remove(BuildFileId{build.id, file.first}.ObjectPath());
    }
  }
}

TEST_F(ForeignAncestorTest, StopReachesSourceAndBase) {
  AddSource([this](const PeerCallOptions& options) -> absl::StatusOr<FileHead> {
    EXPECT_FALSE(options.cancellation.stop_requested());
    stop_.request_stop();
    EXPECT_TRUE(options.cancellation.stop_requested());
    return absl::CancelledError("stopped");
  });
  base_.AddFault({.call = StorageCall::kStat, .stall = true});
  EXPECT_TRUE(absl::IsCancelled(Durable().status()));
}

TEST_F(ForeignAncestorTest, OnlyASourceThatIsNotDoneIsAtWork) {
  EXPECT_EQ(SourceAtWork(build_.id, sources_, connector_), nullptr);
  AddSource(absl::UnavailableError("gone"));
  AddSource(Head(Availability::kUseStorage, BuildState::kDurable));
  AddSource(Head(Availability::kNotAvailable, BuildState::kFailed));
  EXPECT_EQ(SourceAtWork(build_.id, sources_, connector_), nullptr);
  AddSource(Head(Availability::kAvailable, BuildState::kLocal));
  EXPECT_EQ(SourceAtWork(build_.id, sources_, connector_), &sources_[3]);
}

}  // namespace
}  // namespace peerchunk::test
