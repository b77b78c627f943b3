#include "peerchunk/service/chunk_service.h"

#include <fstream>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/header/header.h"
#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "tests/service/answers.h"
#include "tests/service/served_builds.h"
#include "tests/support/memory_storage.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using test::Answer;
using test::MakeTestBuild;
using test::Read;
using test::ReadToEnd;
using test::ServedBuilds;
using test::Take;
using test::TestBuild;

TEST(ChunkServiceTest, EveryFileKindIsServedByteForByte) {
  ServedBuilds served;
  const TestBuild base = MakeTestBuild({.seed = 1});
  const TestBuild child = MakeTestBuild({.seed = 2, .parent = &base});
  served.Add(base);
  served.Add(child);
  for (const TestBuild* build : {&base, &child}) {
    for (const FileKind kind : kAllFileKinds) {
      const Answer answer = Read(*served.Client(), {.file = {build->id, kind}});
      ASSERT_TRUE(answer.status.ok()) << answer.status;
      EXPECT_TRUE(answer.bytes == build->files.at(kind)) << FileName(kind);
      ASSERT_TRUE(answer.head.has_value());
      EXPECT_EQ(answer.head->availability, Availability::kAvailable);
      EXPECT_EQ(answer.head->total_size, build->files.at(kind).size());
      EXPECT_EQ(answer.head->file_crc32c, Crc32c(build->files.at(kind)));
      EXPECT_EQ(answer.head->status.state, BuildState::kLocal);
      EXPECT_TRUE(answer.last);
      EXPECT_EQ(answer.next_offset, build->files.at(kind).size());
    }
  }
}

TEST(ChunkServiceTest, HeaderAndMetadataCostOneMessage) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  for (const FileKind kind : {FileKind::kMetadata, FileKind::kMemfileHeader}) {
    const Answer answer = Read(*served.Client(), {.file = {build.id, kind}});
    EXPECT_EQ(answer.messages, 1);
    EXPECT_TRUE(answer.head && answer.last && !answer.bytes.empty());
  }
}

TEST(ChunkServiceTest, AnyRangeIsServed) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  const std::string& file = build.files.at(FileKind::kMemfile);
  std::mt19937 random(5);
  const auto client = served.Client();
  for (int round = 0; round < 60; ++round) {
    const uint64_t offset = random() % (file.size() + 1);
    const uint64_t length = random() % (2 * (file.size() - offset) + 1);
    const Answer answer =
        Read(*client, {.file = {build.id, FileKind::kMemfile}, .offset = offset, .length = length});
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_TRUE(answer.bytes == file.substr(offset, length));
    EXPECT_EQ(answer.next_offset, offset + answer.bytes.size());
  }
}

TEST(ChunkServiceTest, RangesAtTheEdges) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  const BuildFileId file{build.id, FileKind::kRootfs};
  const uint64_t size = build.files.at(FileKind::kRootfs).size();
  const auto client = served.Client();

  const Answer none = Read(*client, {.file = file, .offset = 5, .length = 0});
  EXPECT_TRUE(none.status.ok() && none.bytes.empty() && none.last && none.head);
  const Answer at_end = Read(*client, {.file = file, .offset = size});
  EXPECT_TRUE(at_end.status.ok() && at_end.bytes.empty() && at_end.last);
  const Answer past = Read(*client, {.file = file, .offset = size + 1});
  EXPECT_EQ(past.status.code(), absl::StatusCode::kOutOfRange);
  // What a negative offset becomes on its way through an unsigned field.
  const Answer negative = Read(*client, {.file = file, .offset = static_cast<uint64_t>(-4096)});
  EXPECT_EQ(negative.status.code(), absl::StatusCode::kOutOfRange);
  const Answer overflow = Read(*client, {.file = file, .offset = 4096, .length = UINT64_MAX});
  EXPECT_TRUE(overflow.status.ok());
  EXPECT_EQ(overflow.bytes, build.files.at(FileKind::kRootfs).substr(4096));
}

TEST(ChunkServiceTest, EmptyFileIsAnAnswerNotAMiss) {
  ServedBuilds served;
  TestBuild build = MakeTestBuild({.memfile_bytes = 0});
  build.files[FileKind::kRootfs] = "";
  HeaderMetadata metadata{
      .block_size = 4096, .size = 8192, .build_id = build.id, .base_build_id = build.id};
  build.files[FileKind::kRootfsHeader] =
      Header::Create(metadata, {{0, 8192, BuildId(), 0}})->Encode();
  served.Add(build);
  const Answer answer = Read(*served.Client(), {.file = {build.id, FileKind::kRootfs}});
  EXPECT_TRUE(answer.status.ok());
  ASSERT_TRUE(answer.head.has_value());
  EXPECT_EQ(answer.head->availability, Availability::kAvailable);
  EXPECT_EQ(answer.head->total_size, 0);
  EXPECT_TRUE(answer.last);
  EXPECT_EQ(answer.messages, 1);
}

TEST(ChunkServiceTest, UnknownBuildIsNotAvailable) {
  ServedBuilds served;
  const Answer answer = Read(*served.Client(), {.file = {BuildId::Random(), FileKind::kMemfile}});
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  ASSERT_TRUE(answer.head.has_value());
  EXPECT_EQ(answer.head->availability, Availability::kNotAvailable);
  EXPECT_TRUE(answer.last && answer.bytes.empty());
}

TEST(ChunkServiceTest, FileThatABuildDoesNotHaveByDesignIsAbsent) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({.memfile_bytes = 0});
  served.Add(build);
  for (const FileKind kind : {FileKind::kMemfile, FileKind::kMemfileHeader, FileKind::kSnapfile}) {
    const Answer answer = Read(*served.Client(), {.file = {build.id, kind}});
    ASSERT_TRUE(answer.head.has_value());
    EXPECT_EQ(answer.head->availability, Availability::kAbsent);
  }
}

TEST(ChunkServiceTest, BadRequestsAreInvalidArgument) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  const auto stub = v1::ChunkService::NewStub(
      grpc::CreateChannel(served.address(), grpc::InsecureChannelCredentials()));
  const auto code = [&](const std::string& id, int file) {
    v1::GetBuildFileRequest request;
    request.set_build_id(id);
    request.set_file(static_cast<v1::BuildFile>(file));
    grpc::ClientContext context;
    auto reader = stub->GetBuildFile(&context, request);
    v1::GetBuildFileResponse response;
    while (reader->Read(&response)) {
    }
    return reader->Finish().error_code();
  };
  const std::string good = build.id.ToString();
  EXPECT_EQ(code("../../etc/passwd", 1), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code("", 1), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code("00000000-0000-0000-0000-000000000000", 1), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code(good + "/memfile", 1), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code(good, 0), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code(good, 99), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code(good, 2), grpc::StatusCode::OK);
}

TEST(ChunkServiceTest, GeneratedClientReadsTheHandFramedStream) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  const auto stub = v1::ChunkService::NewStub(
      grpc::CreateChannel(served.address(), grpc::InsecureChannelCredentials()));
  v1::GetBuildFileRequest request;
  request.set_build_id(build.id.ToString());
  request.set_file(v1::BUILD_FILE_MEMFILE);
  grpc::ClientContext context;
  auto reader = stub->GetBuildFile(&context, request);
  v1::GetBuildFileResponse response;
  std::string bytes;
  while (reader->Read(&response)) {
    bytes.append(response.extent().zero_length(), '\0');
    bytes += response.extent().data();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(bytes == build.files.at(FileKind::kMemfile));
}

TEST(ChunkServiceTest, InfoSaysWhatTheStreamWouldSay) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  const auto head = served.Client()->GetBuildFileInfo({.file = {build.id, FileKind::kMemfile}}, {});
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_EQ(head->availability, Availability::kAvailable);
  EXPECT_EQ(head->total_size, build.files.at(FileKind::kMemfile).size());
  EXPECT_EQ(head->status.state, BuildState::kLocal);
  EXPECT_NE(head->status.incarnation, 0);
  EXPECT_EQ(served.Client()
                ->GetBuildFileInfo({.file = {BuildId(), FileKind::kMemfile}}, {})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ChunkServiceTest, DurableBuildIsReferredToTheStorageUnlessAskedForAllTheSame) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  served.MakeDurable(build);
  const BuildFileId file{build.id, FileKind::kMemfile};
  const Answer referred = Read(*served.Client(), {.file = file});
  ASSERT_TRUE(referred.head.has_value());
  EXPECT_EQ(referred.head->availability, Availability::kUseStorage);
  EXPECT_EQ(referred.head->total_size, build.files.at(FileKind::kMemfile).size());
  EXPECT_EQ(referred.messages, 1);
  EXPECT_TRUE(referred.bytes.empty());
  const Answer anyway = Read(*served.Client(), {.file = file, .even_if_durable = true});
  EXPECT_TRUE(anyway.bytes == build.files.at(FileKind::kMemfile));
}

TEST(ChunkServiceTest, StreamUnderWayWhenTheBuildTurnsDurableIsServedToItsLastByte) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({.memfile_bytes = 24 * 1024 * 1024});
  served.Add(build);
  const PeerRequest request{.file = {build.id, FileKind::kMemfile}};
  const auto stream = served.Client()->GetBuildFile(request, {});
  Answer answer;
  auto first = stream->Next(absl::InfiniteFuture());
  ASSERT_TRUE(first.ok() && first->has_value());
  Take(**first, 0, answer);
  EXPECT_EQ(answer.head->status.state, BuildState::kLocal);
  served.MakeDurable(build);
  ReadToEnd(*stream, 0, answer);
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_TRUE(answer.bytes == build.files.at(FileKind::kMemfile));
  EXPECT_TRUE(answer.last);
  EXPECT_EQ(Read(*served.Client(), request).head->availability, Availability::kUseStorage);
}

TEST(ChunkServiceTest, TemplateEvictedAndBuildRemovedUnderAStreamStillArrives) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({.memfile_bytes = 24 * 1024 * 1024});
  served.Add(build);
  ASSERT_TRUE(served.templates->AddSnapshot(build.id, {}).ok());
  const auto stream = served.Client()->GetBuildFile({.file = {build.id, FileKind::kMemfile}}, {});
  Answer answer;
  auto first = stream->Next(absl::InfiniteFuture());
  ASSERT_TRUE(first.ok() && first->has_value());
  Take(**first, 0, answer);
  served.templates->Evict(build.id);
  ASSERT_TRUE(served.registry->Remove(build.id).ok());
  served.templates->BuildStore().Trim();
  ReadToEnd(*stream, 0, answer);
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_TRUE(answer.bytes == build.files.at(FileKind::kMemfile));
}

// A build whose memory header takes several messages: single pages, no two of them next to each
// other in the diff.
TestBuild MakeBuildWithLargeHeader() {
  constexpr uint64_t kPages = 160'000;
  TestBuild build = MakeTestBuild({});
  std::vector<Mapping> mappings;
  for (uint64_t page = 0; page < kPages; ++page) {
    mappings.push_back({page * kPageBytes, kPageBytes, build.id, page % 2 * 2 * kPageBytes});
  }
  const HeaderMetadata metadata{.block_size = kPageBytes,
                                .size = kPages * kPageBytes,
                                .build_id = build.id,
                                .base_build_id = build.id};
  build.files[FileKind::kMemfileHeader] = Header::Create(metadata, mappings)->Encode();
  return build;
}

// Reads one message, lets the template go, and reads on.
Answer ReadAndEvict(ServedBuilds& served, const TestBuild& build, FileKind kind) {
  Answer answer;
  const auto stream =
      served.Client()->GetBuildFile({.file = {build.id, kind}, .relays_left = 1}, {});
  auto first = stream->Next(absl::InfiniteFuture());
  EXPECT_TRUE(first.ok() && first->has_value());
  if (first.ok() && first->has_value()) Take(**first, 0, answer);
  EXPECT_FALSE(answer.last);
  served.templates->Evict(build.id);
  served.registry->Remove(build.id).IgnoreError();
  served.templates->BuildStore().Trim();
  EXPECT_EQ(served.templates->GetCachedTemplate(build.id), nullptr);
  ReadToEnd(*stream, 0, answer);
  return answer;
}

TEST(ChunkServiceTest, HeaderOfATemplateEvictedUnderItsStreamStillArrives) {
  ServedBuilds served;
  const TestBuild build = MakeBuildWithLargeHeader();
  served.Add(build);
  ASSERT_TRUE(served.templates->AddSnapshot(build.id, {}).ok());
  const Answer answer = ReadAndEvict(served, build, FileKind::kMemfileHeader);
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_GT(answer.messages, 2);
  EXPECT_TRUE(answer.bytes == build.files.at(FileKind::kMemfileHeader));
}

TEST(ChunkServiceTest, FilesOfACachedTemplateEvictedUnderTheirStreamsStillArrive) {
  const auto base = std::make_shared<test::MemoryStorageProvider>();
  ServedBuilds served({}, base);
  const TestBuild headed = MakeBuildWithLargeHeader();
  const TestBuild large = MakeTestBuild({.memfile_bytes = 24 * 1024 * 1024, .seed = 2});
  for (const auto& [build, kind] :
       {std::pair(&headed, FileKind::kMemfileHeader), std::pair(&large, FileKind::kMemfile)}) {
    SCOPED_TRACE(FileName(kind));
    for (const auto& [file, bytes] : build->files) {
      base->Seed(BuildFileId{build->id, file}.ObjectPath(), bytes);
    }
    auto loaded = served.templates->GetTemplate(build->id, {}, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    std::string page(kPageBytes, '?');  // Opens the layer, which would be NOT_YET before.
    ASSERT_TRUE((*loaded)->Memfile()->ReadAt(0, absl::MakeSpan(page), {}).ok());
    loaded = absl::NotFoundError("let go");
    const Answer answer = ReadAndEvict(served, *build, kind);
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_GT(answer.messages, 2);
    EXPECT_TRUE(answer.bytes == build->files.at(kind));
  }
}

TEST(ChunkServiceTest, ByteFlippedOnDiskAfterThePauseNeverReachesAReader) {
  for (const FileKind kind : kAllFileKinds) {
    ServedBuilds served;
    const TestBuild build = MakeTestBuild({});
    served.Add(build);
    const std::string& bytes = build.files.at(kind);
    const uint64_t at = bytes.size() * 2 / 3;
    {
      std::fstream file(served.registry->PathOf({build.id, kind}),
                        std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(at);
      file.put(static_cast<char>(~bytes[at]));
    }
    const Answer answer = Read(*served.Client(), {.file = {build.id, kind}});
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kDataLoss) << FileName(kind);
    EXPECT_FALSE(answer.last);
    EXPECT_TRUE(answer.bytes == bytes.substr(0, answer.bytes.size()));
    EXPECT_LE(answer.bytes.size(), at);
    EXPECT_EQ(served.registry->Find(build.id)->status.state, BuildState::kFailed);
    EXPECT_EQ(
        served.metrics.CounterValue("peerchunk_served_failures_total", {{"reason", "DATA_LOSS"}}),
        1u);
  }
}

// There is room for one stream, and a place is given back by nothing but the end of the one before:
// none is read to its own, and none is taken for stalled.
TEST(ChunkServiceTest, CancelledReadersLeaveNothingBehind) {
  ServedBuilds served({.stall_timeout = absl::InfiniteDuration(), .max_streams = 1});
  const TestBuild build = MakeTestBuild({.memfile_bytes = 24 * 1024 * 1024});
  served.Add(build);
  for (int round = 0; round < 20; ++round) {
    std::unique_ptr<PeerStream> stream;
    absl::StatusOr<std::optional<PeerMessage>> first;
    do {
      stream = served.Client(PeerLane::kBulk)
                   ->GetBuildFile({.file = {build.id, FileKind::kMemfile}}, {});
      first = stream->Next(absl::InfiniteFuture());
    } while (absl::IsResourceExhausted(first.status()));
    ASSERT_TRUE(first.ok() && first->has_value()) << first.status();
    if (round % 2 == 0) stream->Cancel();
  }
}

TEST(ChunkServiceTest, WhatIsServedIsCounted) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  const std::string& memfile = build.files.at(FileKind::kMemfile);
  const auto counted = [&] { return served.metrics.CounterValue("peerchunk_served_bytes_total"); };
  uint64_t before = 0;
  for (const PeerLane lane : {PeerLane::kDemand, PeerLane::kBulk}) {
    const Answer answer = Read(*served.Client(lane), {.file = {build.id, FileKind::kMemfile},
                                                      .offset = memfile.size() - kPageBytes,
                                                      .length = kPageBytes});
    ASSERT_TRUE(answer.bytes == memfile.substr(memfile.size() - kPageBytes));
    const uint64_t after = counted();
    EXPECT_GE(after - before, kPageBytes);
    EXPECT_LT(after - before, kPageBytes + 512) << "its frame, and no more";
    before = after;
  }
}

TEST(ChunkServiceTest, CallsUnderWayAtTheDeadlineOfItsEndAreCancelled) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({.memfile_bytes = 24 * 1024 * 1024});
  served.Add(build);
  const auto stream = served.Client()->GetBuildFile({.file = {build.id, FileKind::kMemfile}}, {});
  auto first = stream->Next(absl::InfiniteFuture());
  ASSERT_TRUE(first.ok() && first->has_value());
  std::thread end([&] { served.service->Shutdown(Clock::Real().Now() + absl::Milliseconds(1)); });
  served.server->Shutdown();  // Waits for calls, however long they take: this one is not read.
  end.join();
  absl::StatusOr<std::optional<PeerMessage>> message = stream->Next(absl::InfiniteFuture());
  while (message.ok() && message->has_value()) message = stream->Next(absl::InfiniteFuture());
  EXPECT_FALSE(message.ok()) << "the stream ended as if it were whole";
}

TEST(ChunkServiceTest, CallersStopTokenEndsTheCall) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({.memfile_bytes = 24 * 1024 * 1024});
  served.Add(build);
  std::stop_source stop;
  const auto stream = served.Client()->GetBuildFile({.file = {build.id, FileKind::kMemfile}},
                                                    {.cancellation = stop.get_token()});
  ASSERT_TRUE(stream->Next(absl::InfiniteFuture()).ok());
  stop.request_stop();
  Answer answer;
  answer.messages = 1;
  while (answer.status.ok()) {
    auto message = stream->Next(absl::InfiniteFuture());
    if (!message.ok()) answer.status = message.status();
    ASSERT_TRUE(!message.ok() || message->has_value()) << "the stream ended as if it were whole";
  }
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(stream->IsAlive());
}

TEST(ChunkServiceTest, NextThatRunsOutOfTimeLeavesTheStreamAlive) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  const auto stream = served.Client()->GetBuildFile({.file = {build.id, FileKind::kMemfile}}, {});
  auto early = stream->Next(absl::InfinitePast());
  if (!early.ok()) {  // Else the message was that quick.
    EXPECT_EQ(early.status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_TRUE(stream->IsAlive());
  }
  Answer answer;
  if (early.ok()) Take(**early, 0, answer);
  ReadToEnd(*stream, 0, answer);
  EXPECT_TRUE(answer.bytes == build.files.at(FileKind::kMemfile));
}

TEST(ChunkServiceTest, OneStreamTooManyIsRefusedAtOnceWithAHint) {
  ServedBuilds served({.max_streams = 1, .retry_hint = absl::Milliseconds(123)});
  const TestBuild build = MakeTestBuild({.memfile_bytes = 64 * 1024 * 1024});
  served.Add(build);
  const PeerRequest request{.file = {build.id, FileKind::kMemfile}};
  // Not read on, so flow control keeps it open.
  const auto first = served.Client()->GetBuildFile(request, {});
  ASSERT_TRUE(first->Next(absl::InfiniteFuture()).ok());
  const Answer second = Read(*served.Client(), request);
  EXPECT_EQ(second.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryAfter(second.status), absl::Milliseconds(123));
}

TEST(ChunkServiceTest, ManyReadersShareASmallBudget) {
  test::SimulatedClock patient;  // No wait is too long.
  ServedBuilds served({.max_bytes_in_flight = 2 * 1024 * 1024, .clock = &patient});
  const TestBuild build = MakeTestBuild({.memfile_bytes = 6 * 1024 * 1024});
  served.Add(build);
  std::vector<std::thread> readers;
  for (int i = 0; i < 16; ++i) {
    readers.emplace_back([&] {
      const Answer answer =
          Read(*served.Client(PeerLane::kBulk), {.file = {build.id, FileKind::kMemfile}});
      EXPECT_TRUE(answer.status.ok()) << answer.status;
      EXPECT_TRUE(answer.bytes == build.files.at(FileKind::kMemfile));
    });
  }
  for (std::thread& reader : readers) reader.join();
}

// Established connections to loopback `port`, as the kernel counts them on the accepting side. gRPC
// listens on an IPv6 socket for IPv4 too, where the kernel has one.
int AcceptedConnections(int port) {
  char hex_port[8];
  std::snprintf(hex_port, sizeof(hex_port), ":%04X", port);
  int count = 0;
  for (const char* path : {"/proc/self/net/tcp", "/proc/self/net/tcp6"}) {
    std::ifstream table(path);
    std::string line;
    while (std::getline(table, line)) {
      std::istringstream fields(line);
      std::string slot, local, remote, state;
      fields >> slot >> local >> remote >> state;
      if (local.ends_with(hex_port) && state == "01") ++count;
    }
  }
  return count;
}

TEST(ChunkServiceTest, DemandAndBulkTravelOnConnectionsOfTheirOwn) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  const PeerRequest request{.file = {build.id, FileKind::kMetadata}};
  const auto demand = served.Client(PeerLane::kDemand);
  ASSERT_TRUE(demand->GetBuildFileInfo(request, {}).ok());
  ASSERT_TRUE(demand->GetBuildFileInfo(request, {}).ok());
  EXPECT_EQ(AcceptedConnections(served.port), 1);
  const auto bulk = served.Client(PeerLane::kBulk);
  ASSERT_TRUE(bulk->GetBuildFileInfo(request, {}).ok());
  EXPECT_EQ(AcceptedConnections(served.port), 2);
  EXPECT_EQ(served.connector->connections(), 2);
}

TEST(ChunkServiceTest, RefusesOptionsThatCannotWork) {
  ServedBuilds served;
  const auto code = [&](ChunkService::Options options) {
    options.metrics = &served.metrics;
    return ChunkService::Create(served.templates.get(), options).status().code();
  };
  EXPECT_EQ(code({.queue_threads = 0}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_bytes_in_flight = 1}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ChunkService::Create(nullptr, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      (*ChunkService::Create(served.templates.get(), {.metrics = &served.metrics}))->Start().code(),
      absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace peerchunk
