// Shared reads against servers that answer as they like: in any order, never, or wrongly.
#include "peer/grpc/read_stream.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "base/chunk_service_limits.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/peer/grpc_connector.h"
#include "peerchunk/peer/http2_connector.h"
#include "peerchunk/v1/chunk_service.grpc.pb.h"

namespace peerchunk {
namespace {

constexpr BuildFileId kFile{BuildId({1, 2}), FileKind::kMemfile};
using Stream = grpc::ServerReaderWriter<v1::ReadBuildFileResponse, v1::ReadBuildFileRequest>;

void Answer(const v1::FileRead& read, v1::FileReadPart* part) {
  part->set_id(read.id());
  v1::GetBuildFileResponse* const message = part->mutable_message();
  message->mutable_head()->set_availability(v1::AVAILABLE);
  message->mutable_head()->set_total_size(1 << 20);
  message->set_last(true);
  message->set_next_offset(read.read().offset() + read.read().length());
  const std::string data(read.read().length(), static_cast<char>('a' + read.read().offset() % 7));
  message->mutable_extent()->set_offset(read.read().offset());
  message->mutable_extent()->set_crc32c(Crc32c(data));
  message->mutable_extent()->set_data(data);
}

class ScriptedService final : public v1::ChunkService::Service {
 public:
  grpc::Status ReadBuildFile(grpc::ServerContext*, Stream* stream) override {
    ++streams;
    return serve(*stream);
  }
  grpc::Status GetBuildFile(grpc::ServerContext*, const v1::GetBuildFileRequest* request,
                            grpc::ServerWriter<v1::GetBuildFileResponse>* writer) override {
    ++calls;
    v1::FileRead read;
    *read.mutable_read() = *request;
    v1::FileReadPart part;
    Answer(read, &part);
    if (malformed_first) {
      v1::GetBuildFileResponse malformed;
      malformed.mutable_extent();  // An empty one.
      writer->Write(malformed);
    }
    writer->Write(part.message());
    return grpc::Status::OK;
  }

  std::function<grpc::Status(Stream&)> serve;
  bool malformed_first = false;  // What GetBuildFile answers.
  std::atomic<int> streams = 0;
  std::atomic<int> calls = 0;
};

// Both ways to dial a peer have the same reads.
using MakeConnector = std::shared_ptr<ChunkServiceConnector> (*)();

class ReadStreamTest : public testing::TestWithParam<MakeConnector> {
 protected:
  void Start(std::function<grpc::Status(Stream&)> serve) {
    service_.serve = std::move(serve);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    builder.SetMaxReceiveMessageSize(kMaxPeerRequestBytes);
    server_ = builder.BuildAndStart();
    const auto policy =
        AddressPolicy::Create({.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}});
    connector_ = GetParam()();
    client_ = *connector_->Connect(*policy->Check("127.0.0.1:" + std::to_string(port_)),
                                   PeerLane::kDemand);
  }
  void TearDown() override {
    client_ = nullptr;
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  }

  std::unique_ptr<PeerStream> Ask(uint64_t offset, const PeerCallOptions& options = {}) {
    return client_->GetBuildFile({.file = kFile, .offset = offset, .length = 4096}, options);
  }
  // The whole of what a read gives; checks it.
  static absl::Status Finish(PeerStream& stream, uint64_t offset) {
    auto message = stream.Next(absl::InfiniteFuture());
    if (!message.ok()) return message.status();
    if (!message->has_value()) return absl::InternalError("no message");
    const PeerMessage& got = **message;
    EXPECT_TRUE(got.last);
    EXPECT_EQ(got.extent->offset, offset);
    EXPECT_EQ(got.extent->length, 4096);
    auto end = stream.Next(absl::InfiniteFuture());
    if (!end.ok()) return end.status();
    EXPECT_FALSE(end->has_value());
    return absl::OkStatus();
  }
  // Answers each read as it comes.
  static grpc::Status Serve(Stream& stream) {
    v1::ReadBuildFileRequest request;
    while (stream.Read(&request)) {
      v1::ReadBuildFileResponse response;
      for (const v1::FileRead& read : request.reads()) Answer(read, response.add_parts());
      if (response.parts_size() > 0) stream.Write(response);
    }
    return grpc::Status::OK;
  }
  // Says nothing until the reader goes.
  static grpc::Status Silent(Stream& stream) {
    v1::ReadBuildFileRequest request;
    while (stream.Read(&request)) {
    }
    return grpc::Status::OK;
  }

  ScriptedService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<ChunkServiceConnector> connector_;
  std::shared_ptr<ChunkServiceClient> client_;
};

INSTANTIATE_TEST_SUITE_P(
    Transports, ReadStreamTest,
    testing::Values(
        +[]() -> std::shared_ptr<ChunkServiceConnector> { return GrpcConnector::Create({}); },
        +[]() -> std::shared_ptr<ChunkServiceConnector> { return Http2Connector::Create({}); }),
    [](const auto& info) { return info.index == 0 ? "Grpc" : "Http2"; });

TEST_P(ReadStreamTest, AnswersAreMatchedInAnyOrder) {
  Start([](Stream& stream) {
    std::vector<v1::FileRead> reads;
    v1::ReadBuildFileRequest request;
    while (reads.size() < 8 && stream.Read(&request)) {
      reads.insert(reads.end(), request.reads().begin(), request.reads().end());
    }
    for (auto read = reads.rbegin(); read != reads.rend(); ++read) {
      v1::ReadBuildFileResponse response;
      Answer(*read, response.add_parts());
      stream.Write(response);
    }
    return Silent(stream);
  });
  std::vector<std::thread> readers;
  for (uint64_t i = 0; i < 8; ++i) {
    readers.emplace_back([&, i] {
      const auto stream = Ask(i * 4096);
      EXPECT_EQ(Finish(*stream, i * 4096), absl::OkStatus());
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(service_.streams, 1);
}

TEST_P(ReadStreamTest, AnAnswerInPartsIsOneStreamOfMessages) {
  Start([](Stream& stream) {
    v1::ReadBuildFileRequest request;
    stream.Read(&request);
    v1::FileRead first = request.reads(0);
    first.mutable_read()->set_length(1024);
    v1::FileRead second = request.reads(0);
    second.mutable_read()->set_offset(first.read().offset() + 1024);
    second.mutable_read()->set_length(3072);
    v1::ReadBuildFileResponse response;
    Answer(first, response.add_parts());
    response.mutable_parts(0)->mutable_message()->set_last(false);
    stream.Write(response);
    response.Clear();
    Answer(second, response.add_parts());
    stream.Write(response);
    return Silent(stream);
  });
  const auto stream = Ask(0);
  const auto one = stream->Next(absl::InfiniteFuture());
  ASSERT_TRUE(one.ok() && one->has_value());
  EXPECT_EQ((*one)->extent->length, 1024);
  EXPECT_TRUE(stream->IsAlive());
  const auto two = stream->Next(absl::InfiniteFuture());
  ASSERT_TRUE(two.ok() && two->has_value());
  EXPECT_EQ((*two)->extent->offset, 1024);
  EXPECT_EQ(*stream->Next(absl::InfiniteFuture()), std::nullopt);
  EXPECT_FALSE(stream->IsAlive());
}

TEST_P(ReadStreamTest, AReadThatRunsOutOfTimeIsAliveUntilItsOwnDeadline) {
  Start(Silent);
  const auto stream = Ask(0);
  EXPECT_TRUE(absl::IsDeadlineExceeded(stream->Next(absl::InfinitePast()).status()));
  EXPECT_TRUE(stream->IsAlive());
  const auto late = Ask(0, {.deadline = absl::InfinitePast()});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late->Next(absl::InfiniteFuture()).status()));
  EXPECT_FALSE(late->IsAlive());
}

TEST_P(ReadStreamTest, CancelEndsAWaitWhetherItDrivesOrNot) {
  Start(Silent);
  std::vector<std::unique_ptr<PeerStream>> streams;
  for (uint64_t i = 0; i < 4; ++i) streams.push_back(Ask(i * 4096));
  std::vector<std::thread> waiters;
  std::atomic<int> cancelled = 0;
  for (const auto& stream : streams) {
    waiters.emplace_back([&] {
      if (absl::IsCancelled(stream->Next(absl::InfiniteFuture()).status())) ++cancelled;
    });
  }
  for (const auto& stream : streams) stream->Cancel();
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(cancelled, 4);
}

TEST_P(ReadStreamTest, TheCallersStopTokenEndsAWait) {
  Start(Silent);
  std::stop_source stop;
  const auto stream = Ask(0, {.cancellation = stop.get_token()});
  std::thread caller([&] { stop.request_stop(); });
  EXPECT_TRUE(absl::IsCancelled(stream->Next(absl::InfiniteFuture()).status()));
  caller.join();
}

TEST_P(ReadStreamTest, ADriverThatLeavesHandsTheOthersOn) {
  Start([&](Stream& stream) {
    std::vector<v1::FileRead> reads;
    v1::ReadBuildFileRequest request;
    bool cancelled = false;
    while ((reads.size() < 3 || !cancelled) && stream.Read(&request)) {
      reads.insert(reads.end(), request.reads().begin(), request.reads().end());
      cancelled |= request.cancelled_size() > 0;
    }
    for (const v1::FileRead& read : reads) {
      v1::ReadBuildFileResponse response;
      Answer(read, response.add_parts());
      stream.Write(response);
    }
    return Silent(stream);
  });
  auto leaver = Ask(0);
  std::vector<std::thread> readers;
  for (uint64_t i = 1; i < 3; ++i) {
    readers.emplace_back([&, i] { EXPECT_EQ(Finish(*Ask(i * 4096), i * 4096), absl::OkStatus()); });
  }
  std::thread gone([&] {
    EXPECT_TRUE(absl::IsCancelled(leaver->Next(absl::InfiniteFuture()).status()));
    leaver = nullptr;  // Tells the server, which answers then.
  });
  leaver->Cancel();
  gone.join();
  for (std::thread& reader : readers) reader.join();
}

TEST_P(ReadStreamTest, APeerThatDoesNotKnowTheMethodIsReadTheOtherWay) {
  Start([](Stream&) { return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "what?"); });
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(Finish(*Ask(i * 4096), i * 4096), absl::OkStatus());
  EXPECT_EQ(service_.streams, 1) << "asked once";
  EXPECT_EQ(service_.calls, 5);
}

TEST_P(ReadStreamTest, AnErrorIsItsReadsAlone) {
  Start([](Stream& stream) {
    v1::ReadBuildFileRequest request;
    while (stream.Read(&request)) {
      v1::ReadBuildFileResponse response;
      for (const v1::FileRead& read : request.reads()) {
        v1::FileReadPart* const part = response.add_parts();
        if (read.read().offset() > 0) {
          Answer(read, part);
          continue;
        }
        part->set_id(read.id());
        part->mutable_error()->set_code(grpc::StatusCode::RESOURCE_EXHAUSTED);
        part->mutable_error()->set_message("busy");
        part->mutable_error()->set_retry_after_ms(40);
      }
      stream.Write(response);
    }
    return grpc::Status::OK;
  });
  const auto busy = Ask(0);
  const absl::Status status = busy->Next(absl::InfiniteFuture()).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(40));
  EXPECT_FALSE(busy->IsAlive());
  EXPECT_EQ(Finish(*Ask(4096), 4096), absl::OkStatus());
  EXPECT_EQ(service_.streams, 1);
}

TEST_P(ReadStreamTest, AStreamThatEndsFailsItsReadsAndTheNextReadOpensAnother) {
  Start([first = std::make_shared<std::atomic<bool>>(true)](Stream& stream) {
    if (!first->exchange(false)) return Serve(stream);
    v1::ReadBuildFileRequest request;
    stream.Read(&request);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(absl::IsUnavailable(Finish(*Ask(0), 0)));
  EXPECT_EQ(Finish(*Ask(0), 0), absl::OkStatus());
  EXPECT_EQ(service_.streams, 2);
}

TEST_P(ReadStreamTest, AStreamThatEndedWhileNobodyReadFailsNoRead) {
  std::atomic<bool> end = false;
  Start([&, first = std::make_shared<std::atomic<bool>>(true)](Stream& stream) {
    if (!first->exchange(false)) return Serve(stream);
    v1::ReadBuildFileRequest request;
    stream.Read(&request);
    v1::ReadBuildFileResponse response;
    Answer(request.reads(0), response.add_parts());
    stream.Write(response);
    end.wait(false);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  });
  EXPECT_EQ(Finish(*Ask(0), 0), absl::OkStatus());
  end = true;
  end.notify_all();
  for (uint64_t i = 1; i < 4; ++i) EXPECT_EQ(Finish(*Ask(i * 4096), i * 4096), absl::OkStatus());
  EXPECT_EQ(service_.streams, 2);
}

TEST_P(ReadStreamTest, AServerThatStartsAgainIsReadAsIfNothingHadBeen) {
  Start(Serve);
  EXPECT_EQ(Finish(*Ask(0), 0), absl::OkStatus());
  server_->Shutdown(std::chrono::system_clock::now());
  server_ = nullptr;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(port_), grpc::InsecureServerCredentials());
  builder.RegisterService(&service_);
  server_ = builder.BuildAndStart();
  ASSERT_NE(server_, nullptr);
  EXPECT_EQ(Finish(*Ask(0), 0), absl::OkStatus());
}

TEST_P(ReadStreamTest, AMessageThatMakesNoSenseEndsTheStream) {
  Start([first = std::make_shared<std::atomic<bool>>(true)](Stream& stream) {
    if (!first->exchange(false)) return Serve(stream);
    v1::ReadBuildFileRequest request;
    stream.Read(&request);
    v1::ReadBuildFileResponse response;
    response.add_parts()->set_id(request.reads(0).id());  // Neither a message nor an error.
    stream.Write(response);
    return Silent(stream);
  });
  EXPECT_TRUE(absl::IsDataLoss(Finish(*Ask(0), 0)));
  EXPECT_EQ(Finish(*Ask(0), 0), absl::OkStatus());
}

TEST_P(ReadStreamTest, AnswersToReadsThatNobodyAskedForAreDropped) {
  Start([](Stream& stream) {
    v1::ReadBuildFileRequest request;
    while (stream.Read(&request)) {
      v1::ReadBuildFileResponse response;
      for (const v1::FileRead& read : request.reads()) {
        Answer(read, response.add_parts());
        response.mutable_parts(0)->set_id(read.id() + 1000);
        Answer(read, response.add_parts());
      }
      stream.Write(response);
    }
    return grpc::Status::OK;
  });
  EXPECT_EQ(Finish(*Ask(0), 0), absl::OkStatus());
}

// The server answers some whenever it has as many as the reader may ask at once.
TEST_P(ReadStreamTest, OfManyReadsAtOnceThePeerHasNoMoreThanItTakes) {
  constexpr size_t kReads = 2000;
  std::atomic<size_t> most = 0;
  Start([&](Stream& stream) {
    std::deque<v1::FileRead> waiting;
    v1::ReadBuildFileRequest request;
    size_t asked = 0;
    while (stream.Read(&request)) {
      asked += request.reads_size();
      waiting.insert(waiting.end(), request.reads().begin(), request.reads().end());
      most = std::max<size_t>(most, waiting.size());
      const bool all = asked == kReads;
      if (!all && waiting.size() < ReadRequests::kMostUnderWay) continue;
      for (size_t left = all ? waiting.size() : 100; left > 0; --left) {
        v1::ReadBuildFileResponse response;
        Answer(waiting.front(), response.add_parts());
        waiting.pop_front();
        stream.Write(response);
      }
    }
    return grpc::Status::OK;
  });
  std::deque<std::unique_ptr<PeerStream>> streams;
  for (uint64_t i = 0; i < kReads; ++i) streams.push_back(Ask(i * 4096));
  for (uint64_t i = 0; i < kReads; ++i) {
    ASSERT_EQ(Finish(*streams.front(), i * 4096), absl::OkStatus()) << i;
    streams.pop_front();
  }
  EXPECT_EQ(most, ReadRequests::kMostUnderWay);
  EXPECT_EQ(service_.streams, 1);
}

TEST_P(ReadStreamTest, AReadThatWaitsForOthersEndsInTimeAndWhenItIsCancelled) {
  Start(Silent);
  std::vector<std::unique_ptr<PeerStream>> under_way;
  while (under_way.size() < ReadRequests::kMostUnderWay) under_way.push_back(Ask(0));
  const auto late = Ask(0, {.deadline = absl::InfinitePast()});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late->Next(absl::InfiniteFuture()).status()));
  const auto cancelled = Ask(0);
  std::thread canceller([&] { cancelled->Cancel(); });
  EXPECT_TRUE(absl::IsCancelled(cancelled->Next(absl::InfiniteFuture()).status()));
  canceller.join();
}

TEST_P(ReadStreamTest, AReadThatIsSentMoreThanWasAskedForEnds) {
  Start([](Stream& stream) {
    v1::ReadBuildFileRequest request;
    stream.Read(&request);
    v1::ReadBuildFileResponse response;
    for (int i = 0; i < 4000; ++i) {
      v1::FileReadPart* const part = response.add_parts();
      part->set_id(request.reads(0).id());
      part->mutable_message();  // There is nothing in it.
    }
    stream.Write(response);
    return Silent(stream);
  });
  const auto stream = Ask(0);
  absl::StatusOr<std::optional<PeerMessage>> message;
  int messages = -1;
  do {
    message = stream->Next(absl::InfiniteFuture());
    ++messages;
  } while (message.ok());
  EXPECT_TRUE(absl::IsDataLoss(message.status())) << message.status();
  EXPECT_LT(messages, 4000);
}

TEST_P(ReadStreamTest, WhatThePeerSaysForgesNoLineOfTheLog) {
  Start([](Stream&) {
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "no\nevent=\"forged\"");
  });
  EXPECT_EQ(Finish(*Ask(0), 0), absl::FailedPreconditionError("no?event=?forged?"));
}

TEST_P(ReadStreamTest, AMalformedMessageIsTheEndOfACallByItself) {
  service_.malformed_first = true;
  Start(Serve);
  const auto stream = client_->GetBuildFile({.file = kFile, .offset = 0}, {});
  const absl::Status end = stream->Next(absl::InfiniteFuture()).status();
  EXPECT_TRUE(absl::IsDataLoss(end)) << end;
  EXPECT_FALSE(stream->IsAlive());
  EXPECT_EQ(stream->Next(absl::InfiniteFuture()).status(), end);
}

TEST_P(ReadStreamTest, ManyReadersComeAndGo) {
  Start(Serve);
  std::vector<std::thread> readers;
  for (uint64_t i = 0; i < 16; ++i) {
    readers.emplace_back([&, i] {
      for (uint64_t round = 0; round < 100; ++round) {
        const auto stream = Ask((i * 100 + round) * 4096);
        if (round % 5 == 0) continue;  // Left without an answer.
        ASSERT_EQ(Finish(*stream, (i * 100 + round) * 4096), absl::OkStatus());
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(service_.streams, 1);
}

}  // namespace
}  // namespace peerchunk
