// Demand reads over one call, against a server that is played frame by frame.
#include "peer/http2/shared_stream.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/v1/chunk_service.pb.h"
#include "tests/peer/http2/scripted_server.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/thread_state.h"

namespace peerchunk::http2 {
namespace {

using Ids = std::vector<uint64_t>;

struct Asked {
  Ids reads;
  Ids cancelled;
  bool operator==(const Asked&) const = default;
};

std::shared_ptr<SharedReads::Read> AskOf(SharedStream& stream) {
  return stream.Ask({.file = {BuildId({1}), FileKind::kMemfile}, .offset = 0, .length = 4096},
                    absl::InfiniteFuture());
}

Asked NextMessageOf(test::ScriptedServer& server) {
  v1::ReadBuildFileRequest request;
  EXPECT_TRUE(request.ParseFromString(server.ReadFrame(FrameType::kData).payload.substr(5)));
  Asked asked;
  for (const v1::FileRead& read : request.reads()) asked.reads.push_back(read.id());
  asked.cancelled.assign(request.cancelled().begin(), request.cancelled().end());
  return asked;
}

Asked NextMessageAfterPreface(test::ScriptedServer& server) {
  server.ReadPreface();
  return NextMessageOf(server);
}

void AnswerOf(test::ScriptedServer& server, uint64_t id) {
  v1::ReadBuildFileResponse response;
  v1::FileReadPart* const part = response.add_parts();
  part->set_id(id);
  part->mutable_message()->set_last(true);
  server.SendMessage(1, response.SerializeAsString());
}

class SharedStreamTest : public testing::Test {
 protected:
  // Asks for a first read, and waits for it on a thread of its own, which drives.
  SharedStreamTest() {
    auto [client, end] = test::MakeSocketPair();
    server_ = std::make_unique<test::ScriptedServer>(std::move(end));
    stream_ = SharedStream::Make(
        std::make_shared<Connection>(std::move(client), "10.0.0.1:1", false, clock_), clock_);
    stream_->Begin();
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

  std::shared_ptr<SharedReads::Read> Ask() { return AskOf(*stream_); }
  Asked NextMessage() { return NextMessageOf(*server_); }
  void Answer(uint64_t id) { AnswerOf(*server_, id); }

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

// Else the peer would have nothing to do while all of them are taken here, and the other way round.
TEST_F(SharedStreamTest, OfManyReadsHalfGoInEachMessage) {
  std::vector<std::shared_ptr<SharedReads::Read>> reads;
  reads.push_back(Ask());
  EXPECT_EQ(NextMessage(), (Asked{.reads = {2}, .cancelled = {}}));
  while (reads.size() < 11) reads.push_back(Ask());
  Answer(2);
  EXPECT_EQ(NextMessage(), (Asked{.reads = {3, 4, 5, 6, 7, 8}, .cancelled = {}}));
  EXPECT_EQ(NextMessage(), (Asked{.reads = {9, 10, 11, 12}, .cancelled = {}}));
  while (reads.size() < 14) reads.push_back(Ask());
  Answer(5);  // Of the first of the two: one more may go.
  EXPECT_EQ(NextMessage(), (Asked{.reads = {13, 14, 15}, .cancelled = {}}));
  reads.push_back(Ask());
  Answer(4);  // Of a message that was answered before.
  clock_.Advance(absl::Microseconds(99));
  Answer(10);
  EXPECT_EQ(NextMessage(), (Asked{.reads = {16}, .cancelled = {}}));
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

// In halves the second one would wait for as long again.
TEST_F(SharedStreamTest, WhatHasGatheredForAsLongAsItMayGoesWhole) {
  std::vector<std::shared_ptr<SharedReads::Read>> reads;
  reads.push_back(Ask());
  EXPECT_EQ(NextMessage(), (Asked{.reads = {2}, .cancelled = {}}));
  while (reads.size() < 9) reads.push_back(Ask());
  clock_.Advance(absl::Microseconds(100));
  EXPECT_EQ(NextMessage(), (Asked{.reads = {3, 4, 5, 6, 7, 8, 9, 10}, .cancelled = {}}));
}

// The peer is no longer busy, whoever still wants to know.
TEST_F(SharedStreamTest, AnAnswerToAReadThatWasGivenUpLetsOthersGo) {
  const auto second = Ask();
  EXPECT_EQ(NextMessage(), (Asked{.reads = {2}, .cancelled = {}}));
  stream_->Leave(*second, /*answered=*/false);
  EXPECT_EQ(NextMessage(), (Asked{.reads = {}, .cancelled = {2}}));
  const auto third = Ask();
  Answer(2);
  EXPECT_EQ(NextMessage(), (Asked{.reads = {3}, .cancelled = {}})) << "no time has passed";
}

TEST_F(SharedStreamTest, AReadThatIsGivenUpIsCancelledAtOnce) {
  const auto second = Ask();
  EXPECT_EQ(NextMessage(), (Asked{.reads = {2}, .cancelled = {}}));
  const auto third = Ask();
  stream_->Leave(*second, /*answered=*/false);
  EXPECT_EQ(NextMessage(), (Asked{.reads = {3}, .cancelled = {2}}));
}

// A read that came too late for what the peer takes at once.
TEST_F(SharedStreamTest, AReadBeyondWhatThePeerTakesWaitsHereAndMayBeGivenUp) {
  std::vector<std::shared_ptr<SharedReads::Read>> reads;
  reads.push_back(Ask());
  EXPECT_EQ(NextMessage(), (Asked{.reads = {2}, .cancelled = {}}));
  while (reads.size() + 1 < ReadRequests::kMostUnderWay) reads.push_back(Ask());
  clock_.Advance(absl::Microseconds(100));
  EXPECT_EQ(NextMessage().reads.size(), ReadRequests::kMostUnderWay - 2);

  const auto late = Ask();
  const auto cancelled = Ask();
  const auto next = Ask();
  clock_.Advance(absl::Seconds(1));
  const auto nothing = stream_->Await(*late, clock_.Now());
  ASSERT_TRUE(nothing.ok()) << nothing.status();
  EXPECT_FALSE(nothing->has_value());
  stream_->Leave(*late, /*answered=*/false);
  std::thread canceller([&] { stream_->Cancel(*cancelled); });
  EXPECT_TRUE(absl::IsCancelled(stream_->Await(*cancelled, absl::InfiniteFuture()).status()));
  canceller.join();
  stream_->Leave(*cancelled, /*answered=*/false);

  // The peer never hears of those two.
  const uint64_t id_of_next = ReadRequests::kMostUnderWay + 3;
  stream_->Leave(*reads.front(), /*answered=*/true);
  EXPECT_EQ(NextMessage(), (Asked{.reads = {id_of_next}, .cancelled = {}}));
}

TEST_F(SharedStreamTest, AReadThatIsSentMoreThanWasAskedForEnds) {
  const auto read = Ask();
  EXPECT_EQ(NextMessage(), (Asked{.reads = {2}, .cancelled = {}}));
  v1::ReadBuildFileResponse response;
  for (int i = 0; i < 4000; ++i) {
    v1::FileReadPart* const part = response.add_parts();
    part->set_id(2);
    part->mutable_message();  // There is nothing in it.
  }
  server_->SendMessage(1, response.SerializeAsString());
  absl::StatusOr<std::optional<ReadPart>> part;
  int parts = -1;
  do {
    part = stream_->Await(*read, absl::InfiniteFuture());
    ++parts;
  } while (part.ok());
  EXPECT_TRUE(absl::IsDataLoss(part.status())) << part.status();
  EXPECT_LT(parts, 4000);
  EXPECT_TRUE(stream_->IsAlive());
}

// A peer that is being dialled.
class PendingSocket final : public Socket {
 public:
  explicit PendingSocket(std::atomic<int>& looks) : looks_(looks) {
    std::tie(socket_, other_) = MakeQuietPair();
  }
  int fd() const override { return socket_.fd(); }
  absl::StatusOr<bool> Open() override {
    ++looks_;
    return false;
  }
  short OpenEvents() const override { return POLLIN; }
  absl::StatusOr<size_t> Read(absl::Span<char>, absl::Span<char>) override { return 0; }
  absl::StatusOr<size_t> Write(std::string_view) override { return 0; }
  void Shutdown() override {}

 private:
  static std::pair<File, File> MakeQuietPair() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    return {File(ends[0]), File(ends[1])};
  }

  std::atomic<int>& looks_;
  File socket_;
  File other_;
};

TEST(SharedStreamDialTest, AReaderSleepsWhileThePeerIsDialled) {
  test::SimulatedClock clock;
  std::atomic<int> looks = 0;
  const auto stream =
      SharedStream::Make(std::make_shared<Connection>(std::make_unique<PendingSocket>(looks),
                                                      "10.0.0.1:1", false, clock),
                         clock);
  stream->Begin();
  const auto read = AskOf(*stream);
  std::atomic<pid_t> reads = 0;
  std::thread reader([&] {
    reads = gettid();
    EXPECT_TRUE(absl::IsCancelled(stream->Await(*read, absl::InfiniteFuture()).status()));
  });
  while (looks <= 10 && !test::SleepsIn(reads, SYS_ppoll)) std::this_thread::yield();
  stream->Cancel(*read);
  reader.join();
  EXPECT_LE(looks, 10);
}

// A socket that lets a test in before it writes, once.
class InterruptedSocket final : public Socket {
 public:
  InterruptedSocket(std::unique_ptr<Socket> under, std::function<void()>& before_write)
      : under_(std::move(under)), before_write_(before_write) {}
  int fd() const override { return under_->fd(); }
  absl::StatusOr<bool> Open() override { return under_->Open(); }
  short OpenEvents() const override { return under_->OpenEvents(); }
  absl::StatusOr<size_t> Read(absl::Span<char> first, absl::Span<char> second) override {
    return under_->Read(first, second);
  }
  absl::StatusOr<size_t> Write(std::string_view bytes) override {
    if (before_write_) std::exchange(before_write_, nullptr)();
    return under_->Write(bytes);
  }
  void Shutdown() override { under_->Shutdown(); }

 private:
  const std::unique_ptr<Socket> under_;
  std::function<void()>& before_write_;
};

// It sleeps until its own answer comes, which may be never; nobody else is there to send them.
TEST(SharedStreamRestTest, ADriverThatSleepsIsWokenForTheReadsThatHadToWait) {
  auto [client, end] = test::MakeSocketPair();
  test::ScriptedServer server(std::move(end));
  std::function<void()> before_write;
  Clock& clock = Clock::Real();
  const auto stream =
      SharedStream::Make(std::make_shared<Connection>(
                             std::make_unique<InterruptedSocket>(std::move(client), before_write),
                             "10.0.0.1:1", false, clock),
                         clock);
  stream->Begin();
  std::vector<std::shared_ptr<SharedReads::Read>> reads;
  const auto ask = [&] { reads.push_back(AskOf(*stream)); };
  const auto await = [&](SharedReads::Read& read) {
    const auto part = stream->Await(read, absl::InfiniteFuture());
    EXPECT_TRUE(part.ok()) << part.status();
    stream->Leave(read, /*answered=*/true);
  };
  ask();
  const std::shared_ptr<SharedReads::Read> first = reads.front();
  std::atomic<pid_t> drives = 0;
  std::thread driver([&] {
    drives = gettid();
    await(*first);
  });
  EXPECT_EQ(server.ReadPreface(), kPreface);
  server.SendSettings();
  EXPECT_EQ(NextMessageOf(server), (Asked{.reads = {1}, .cancelled = {}}));
  server.SendHeaders(1);
  ask();
  EXPECT_EQ(NextMessageOf(server), (Asked{.reads = {2}, .cancelled = {}}));
  AnswerOf(server, 2);
  await(*reads.back());
  while (!test::SleepsIn(drives, SYS_ppoll)) std::this_thread::yield();
  before_write = [&] {
    for (int i = 0; i < 10; ++i) ask();
  };
  ask();
  EXPECT_EQ(NextMessageOf(server), (Asked{.reads = {3}, .cancelled = {}}));
  EXPECT_EQ(NextMessageOf(server), (Asked{.reads = {4, 5, 6, 7, 8, 9}, .cancelled = {}}));
  EXPECT_EQ(NextMessageOf(server), (Asked{.reads = {10, 11, 12, 13}, .cancelled = {}}));
  AnswerOf(server, 1);
  driver.join();
}

// The peer answers before it is asked anything, and before whoever begins the call has it.
TEST(SharedStreamBeginTest, AnAnswerMayComeWhileTheCallIsBegun) {
  auto [client, end] = test::MakeSocketPair();
  test::ScriptedServer server(std::move(end));
  server.SendSettings();
  std::function<void()> before_write;
  Clock& clock = Clock::Real();
  const auto connection = std::make_shared<Connection>(
      std::make_unique<InterruptedSocket>(std::move(client), before_write), "10.0.0.1:1", false,
      clock);
  while (!connection->IsOpen()) connection->Tend();
  const auto stream = SharedStream::Make(connection, clock);
  before_write = [&] {
    server.SendHeaders(1);
    AnswerOf(server, 7);
    while (!stream->HasAnswered()) connection->Tend();
    server.SendMessage(1, "no parts");
    while (stream->IsAlive()) connection->Tend();
  };
  stream->Begin();
  EXPECT_FALSE(before_write);
  EXPECT_FALSE(stream->IsAlive());
}

// As gRPC's server does when it drains: the peer is well, the stream is over.
TEST(SharedStreamEndTest, AStreamThatEndsInsideAMessageEndsAsThePeerSays) {
  for (const char* const code : {"1", "14"}) {
    auto [client, end] = test::MakeSocketPair();
    test::ScriptedServer server(std::move(end));
    Clock& clock = Clock::Real();
    const auto stream = SharedStream::Make(
        std::make_shared<Connection>(std::move(client), "10.0.0.1:1", false, clock), clock);
    stream->Begin();
    const auto read = AskOf(*stream);
    server.SendSettings();
    std::thread serve([&] {
      EXPECT_EQ(NextMessageAfterPreface(server), (Asked{.reads = {1}, .cancelled = {}}));
      server.SendHeaders(1);
      server.SendFrame(FrameType::kData, 0, 1, test::Prefixed("0123456789").substr(0, 9));
      server.SendTrailers(1, code);
    });
    const auto part = stream->Await(*read, absl::InfiniteFuture());
    EXPECT_TRUE(absl::IsUnavailable(part.status())) << part.status();
    serve.join();
  }
}

}  // namespace
}  // namespace peerchunk::http2
