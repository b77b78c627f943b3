// Demand reads over one call, against a server that is played frame by frame.
#include "peer/http2/shared_stream.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/v1/chunk_service.pb.h"
#include "tests/peer/http2/scripted_server.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk::http2 {
namespace {

using Ids = std::vector<uint64_t>;

class SharedStreamTest : public testing::Test {
 protected:
  struct Asked {
    Ids reads;
    Ids cancelled;
    bool operator==(const Asked&) const = default;
  };

  // Asks for a first read, and waits for it on a thread of its own, which drives.
  SharedStreamTest() {
    auto [client, end] = test::MakeSocketPair();
    server_ = std::make_unique<test::ScriptedServer>(std::move(end));
    stream_ = SharedStream::Open(
        std::make_shared<Connection>(std::move(client), "10.0.0.1:1", false, clock_), clock_);
    first_ = Ask();
    driver_ = std::thread([this] {
      const auto part = stream_->Await(*first_, absl::InfiniteFuture());
      EXPECT_TRUE(part.ok()) << part.status();
    });
    EXPECT_EQ(server_->ReadPreface(), kPreface);
    server_->SendSettings();
    EXPECT_EQ(NextMessage(), (Asked{.reads = {1}, .cancelled = {}}));
    server_->SendHeaders(1);
  }
  ~SharedStreamTest() override {
    Answer(1);
    driver_.join();
  }

  std::shared_ptr<SharedReads::Read> Ask() {
    return stream_->Ask({.file = {BuildId({1}), FileKind::kMemfile}, .offset = 0, .length = 4096},
                        absl::InfiniteFuture());
  }
  Asked NextMessage() {
    v1::ReadBuildFileRequest request;
    EXPECT_TRUE(request.ParseFromString(server_->ReadFrame(FrameType::kData).payload.substr(5)));
    Asked asked;
    for (const v1::FileRead& read : request.reads()) asked.reads.push_back(read.id());
    asked.cancelled.assign(request.cancelled().begin(), request.cancelled().end());
    return asked;
  }
  void Answer(uint64_t id) {
    v1::ReadBuildFileResponse response;
    v1::FileReadPart* const part = response.add_parts();
    part->set_id(id);
    part->mutable_message()->set_last(true);
    server_->SendMessage(1, response.SerializeAsString());
  }

  test::SimulatedClock clock_;
  std::unique_ptr<test::ScriptedServer> server_;
  std::shared_ptr<SharedStream> stream_;
  std::shared_ptr<SharedReads::Read> first_;
  std::thread driver_;
};

TEST_F(SharedStreamTest, WhatIsAskedWhileThePeerIsBusyGoesInOneMessage) {
  const auto second = Ask();
  EXPECT_EQ(NextMessage(), (Asked{.reads = {2}, .cancelled = {}})) << "one more may be on its way";
  const auto third = Ask();
  const auto fourth = Ask();
  Answer(2);
  EXPECT_EQ(NextMessage(), (Asked{.reads = {3, 4}, .cancelled = {}}));
}

// One that takes its time, like a read that the peer has to fetch, holds nothing up.
TEST_F(SharedStreamTest, NothingGathersForLongerThanItMay) {
  const auto second = Ask();
  EXPECT_EQ(NextMessage(), (Asked{.reads = {2}, .cancelled = {}}));
  const auto third = Ask();
  clock_.Advance(absl::Microseconds(100));
  EXPECT_EQ(NextMessage(), (Asked{.reads = {3}, .cancelled = {}}));
  const auto fourth = Ask();
  clock_.Advance(absl::Microseconds(100));
  EXPECT_EQ(NextMessage(), (Asked{.reads = {4}, .cancelled = {}}));
  clock_.Advance(absl::Microseconds(100));
  const auto fifth = Ask();
  EXPECT_EQ(NextMessage(), (Asked{.reads = {5}, .cancelled = {}})) << "at once";
}

TEST_F(SharedStreamTest, AReadThatIsGivenUpIsCancelledAtOnce) {
  const auto second = Ask();
  EXPECT_EQ(NextMessage(), (Asked{.reads = {2}, .cancelled = {}}));
  const auto third = Ask();
  stream_->Leave(*second, /*answered=*/false);
  EXPECT_EQ(NextMessage(), (Asked{.reads = {3}, .cancelled = {2}}));
}

}  // namespace
}  // namespace peerchunk::http2
