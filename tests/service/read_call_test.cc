// ReadBuildFile over the real wire: many reads on one stream, each as GetBuildFile answers it.
#include <fcntl.h>

#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "tests/service/answers.h"
#include "tests/service/served_builds.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using test::Answer;
using test::MakeTestBuild;
using test::Read;
using test::ReadToEnd;
using test::ServedBuilds;
using test::TestBuild;

constexpr BuildId kUnknown({0xdd, 1});

TEST(ReadCallTest, EveryReadIsAnsweredAsGetBuildFileAnswersIt) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({.memfile_bytes = 3 * 1024 * 1024});
  const TestBuild durable = MakeTestBuild({.seed = 2});
  const TestBuild no_memory = MakeTestBuild({.memfile_bytes = 0, .seed = 3});
  for (const TestBuild* const each : {&build, &durable, &no_memory}) served.Add(*each);
  served.MakeDurable(durable);
  std::vector<PeerRequest> requests;
  for (const BuildId& id : {build.id, durable.id, no_memory.id, kUnknown}) {
    for (const FileKind kind : kAllFileKinds) {
      for (const auto& [offset, length] :
           std::vector<std::pair<uint64_t, uint64_t>>{{0, 4096},
                                                      {0, 0},
                                                      {5, 1},
                                                      {1024 * 1024 - 4096, 8192},
                                                      {4096, 256 * 1024},
                                                      {1ull << 40, 4096}}) {
        for (const bool even_if_durable : {false, true}) {
          requests.push_back({.file = {id, kind},
                              .offset = offset,
                              .length = length,
                              .even_if_durable = even_if_durable,
                              .relays_left = 1});
        }
      }
    }
  }
  // Twice: from the disk, with the first check of each block, and from memory.
  for (int pass = 0; pass < 2; ++pass) {
    for (const PeerRequest& request : requests) {
      SCOPED_TRACE(request.file.ObjectPath() + " " + std::to_string(request.offset));
      const Answer shared = Read(*served.Client(PeerLane::kDemand), request);
      const Answer alone = Read(*served.Client(PeerLane::kBulk), request);
      EXPECT_EQ(shared.status, alone.status);
      EXPECT_TRUE(shared.bytes == alone.bytes);
      EXPECT_EQ(shared.last, alone.last);
      EXPECT_EQ(shared.end_status, alone.end_status);
      EXPECT_EQ(shared.next_offset, alone.next_offset);
      ASSERT_EQ(shared.head.has_value(), alone.head.has_value());
      if (!shared.head) continue;
      EXPECT_EQ(shared.head->availability, alone.head->availability);
      EXPECT_EQ(shared.head->total_size, alone.head->total_size);
      EXPECT_EQ(shared.head->file_crc32c, alone.head->file_crc32c);
      EXPECT_EQ(shared.head->version, alone.head->version);
    }
  }
}

TEST(ReadCallTest, ManyReadersShareOneStream) {
  // A second stream would be refused.
  ServedBuilds served({.max_streams = 1});
  const TestBuild build = MakeTestBuild({.memfile_bytes = 8 * 1024 * 1024});
  served.Add(build);
  const std::string& memfile = build.files.at(FileKind::kMemfile);
  std::vector<std::thread> readers;
  for (uint32_t i = 0; i < 24; ++i) {
    readers.emplace_back([&, i] {
      std::mt19937 random(i);
      for (int read = 0; read < 40; ++read) {
        const uint64_t offset = random() % memfile.size();
        const uint64_t length = 1 + random() % (256 * 1024);
        const Answer answer =
            Read(*served.Client(),
                 {.file = {build.id, FileKind::kMemfile}, .offset = offset, .length = length});
        ASSERT_TRUE(answer.status.ok()) << answer.status;
        ASSERT_TRUE(answer.bytes == memfile.substr(offset, length));
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
}

TEST(ReadCallTest, ManyReadsWaitForASmallBudget) {
  test::SimulatedClock patient;  // No wait is too long.
  ServedBuilds served({.max_bytes_in_flight = 2 * 1024 * 1024, .clock = &patient});
  const TestBuild build = MakeTestBuild({.memfile_bytes = 8 * 1024 * 1024});
  served.Add(build);
  const std::string& memfile = build.files.at(FileKind::kMemfile);
  ASSERT_GE(memfile.size(), 4u * 1024 * 1024);
  std::vector<std::unique_ptr<PeerStream>> streams;
  const auto client = served.Client();
  for (uint64_t i = 0; i < 200; ++i) {
    streams.push_back(client->GetBuildFile({.file = {build.id, FileKind::kMemfile},
                                            .offset = i % 16 * 256 * 1024,
                                            .length = 256 * 1024},
                                           {}));
  }
  for (uint64_t i = 0; i < streams.size(); ++i) {
    Answer answer;
    ReadToEnd(*streams[i], i % 16 * 256 * 1024, answer);
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_TRUE(answer.bytes == memfile.substr(i % 16 * 256 * 1024, 256 * 1024));
  }
}

TEST(ReadCallTest, ByteFlippedAfterThePauseIsDataLossForItsReadAlone) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({.memfile_bytes = 3 * 1024 * 1024});
  served.Add(build);
  const std::string path = served.registry->PathOf({build.id, FileKind::kMemfile});
  const char flipped = static_cast<char>(build.files.at(FileKind::kMemfile)[7] ^ 1);
  ASSERT_TRUE(File::Open(path, O_RDWR)->WriteAt(7, std::string_view(&flipped, 1)).ok());
  const auto client = served.Client();
  const auto good = client->GetBuildFile(
      {.file = {build.id, FileKind::kMemfile}, .offset = 1024 * 1024, .length = 4096}, {});
  const Answer bad =
      Read(*client, {.file = {build.id, FileKind::kMemfile}, .offset = 4096, .length = 4096});
  EXPECT_EQ(bad.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(bad.bytes, "");
  EXPECT_EQ(
      served.metrics.CounterValue("peerchunk_served_failures_total", {{"reason", "DATA_LOSS"}}),
      1u);
  Answer answer;
  ReadToEnd(*good, 1024 * 1024, answer);
  EXPECT_TRUE(answer.status.ok()) << answer.status;
}

// The checksum that a reader gets is that of the bytes that were checked, however it asks.
TEST(ReadCallTest, BytesThatChangeAfterTheirFirstCheckDoNotMatchTheirChecksum) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({.memfile_bytes = 3 * 1024 * 1024});
  served.Add(build);
  const BuildFileId file{build.id, FileKind::kMemfile};
  const std::string& memfile = build.files.at(FileKind::kMemfile);
  const std::string page = memfile.substr(kPageBytes, kPageBytes);
  const PeerRequest request{.file = file, .offset = kPageBytes, .length = kPageBytes};
  ASSERT_EQ(Read(*served.Client(), request).bytes, page);
  const File raw = *File::Open(served.registry->PathOf(file), O_RDWR);
  for (const uint64_t at : {kPageBytes + 9, 2 * kPageBytes + 9}) {
    const char flipped = static_cast<char>(memfile[at] ^ 1);
    ASSERT_TRUE(raw.WriteAt(at, std::string_view(&flipped, 1)).ok());
  }
  for (const PeerLane lane : {PeerLane::kDemand, PeerLane::kBulk}) {
    const auto stream = served.Client(lane)->GetBuildFile(request, {});
    const auto message = stream->Next(absl::InfiniteFuture());
    if (!message.ok()) {
      EXPECT_EQ(message.status().code(), absl::StatusCode::kDataLoss);
      continue;
    }
    ASSERT_TRUE(message->has_value() && (*message)->extent);
    std::string data;
    for (const std::string_view piece : (*message)->extent->pieces) data.append(piece);
    EXPECT_NE(data, page);
    EXPECT_EQ((*message)->extent->crc32c, Crc32c(page));
  }
  std::string out(kPageBytes, '?');
  const auto held = served.templates->Resolve(file, true, true);
  ASSERT_TRUE(held.ok() && held->file != nullptr);
  for (const uint64_t at : {kPageBytes, 2 * kPageBytes}) {
    EXPECT_EQ(held->file->ReadAt(at, absl::MakeSpan(out), {}).status().code(),
              absl::StatusCode::kDataLoss);
  }
}

TEST(ReadCallTest, ReadsThatNobodyWaitsForLeaveNothingBehind) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({.memfile_bytes = 4 * 1024 * 1024});
  served.Add(build);
  const auto client = served.Client();
  for (int round = 0; round < 50; ++round) {
    const auto dropped = client->GetBuildFile(
        {.file = {build.id, FileKind::kMemfile}, .offset = 0, .length = 256 * 1024}, {});
    if (round % 2 == 0) dropped->Cancel();
    if (round % 4 == 0) {
      EXPECT_EQ(dropped->Next(absl::InfiniteFuture()).status().code(),
                absl::StatusCode::kCancelled);
    }
  }
  const Answer after =
      Read(*client, {.file = {build.id, FileKind::kMemfile}, .offset = 0, .length = 4096});
  EXPECT_TRUE(after.status.ok()) << after.status;
  served.Stop();  // Waits for every call object.
}

TEST(ReadCallTest, AnIdleStreamDoesNotHoldUpTheServersEnd) {
  ServedBuilds served;
  const TestBuild build = MakeTestBuild({});
  served.Add(build);
  const auto client = served.Client();
  const PeerRequest request{.file = {build.id, FileKind::kMemfile}, .offset = 0, .length = 4096};
  ASSERT_TRUE(Read(*client, request).status.ok());
  served.service->BeginShutdown();
  served.server->Shutdown();  // Without a deadline: for ever, if the stream stayed.
  EXPECT_EQ(Read(*client, request).status.code(), absl::StatusCode::kUnavailable);
}

// What a correct client never sends.
class RawReadsTest : public testing::Test {
 protected:
  RawReadsTest() : build_(MakeTestBuild({.memfile_bytes = 2 * 1024 * 1024})) {
    served_.Add(build_);
    stub_ = v1::ChunkService::NewStub(
        grpc::CreateChannel(served_.address(), grpc::InsecureChannelCredentials()));
  }
  v1::FileRead* AddRead(v1::ReadBuildFileRequest& request, uint64_t id) {
    v1::FileRead* const read = request.add_reads();
    read->set_id(id);
    read->mutable_read()->set_build_id(build_.id.ToString());
    read->mutable_read()->set_file(v1::BUILD_FILE_MEMFILE);
    read->mutable_read()->set_length(4096);
    return read;
  }
  // The codes of the errors, by id; 0 for an answer. Ends when `parts` of them are there.
  std::multimap<uint64_t, int> Ask(const v1::ReadBuildFileRequest& request, size_t parts) {
    grpc::ClientContext context;
    const auto stream = stub_->ReadBuildFile(&context);
    EXPECT_TRUE(stream->Write(request));
    EXPECT_TRUE(stream->WritesDone());
    std::multimap<uint64_t, int> codes;
    v1::ReadBuildFileResponse response;
    while (codes.size() < parts && stream->Read(&response)) {
      for (const v1::FileReadPart& part : response.parts()) {
        codes.emplace(part.id(), part.error().code());
        if (!part.has_error()) {
          const v1::Extent& extent = part.message().extent();
          const std::string& memfile = build_.files.at(FileKind::kMemfile);
          EXPECT_TRUE(extent.data() == memfile.substr(extent.offset(), extent.data().size()));
        }
      }
    }
    EXPECT_FALSE(stream->Read(&response));
    const grpc::Status end = stream->Finish();
    EXPECT_TRUE(end.ok()) << end.error_message();
    return codes;
  }

  ServedBuilds served_;
  const TestBuild build_;
  std::unique_ptr<v1::ChunkService::Stub> stub_;
};

TEST_F(RawReadsTest, GeneratedClientReadsTheHandFramedAnswers) {
  v1::ReadBuildFileRequest request;
  for (uint64_t id = 1; id <= 300; ++id) {
    AddRead(request, id)->mutable_read()->set_offset(id % 100 * 4096);
  }
  const auto codes = Ask(request, 300);
  EXPECT_EQ(codes.size(), 300u);
  for (const auto& [id, code] : codes) EXPECT_EQ(code, 0) << id;
}

TEST_F(RawReadsTest, AWrongReadFailsAlone) {
  v1::ReadBuildFileRequest request;
  AddRead(request, 1);
  AddRead(request, 2)->mutable_read()->clear_length();
  AddRead(request, 3)->mutable_read()->set_length(1024 * 1024 + 1);
  AddRead(request, 4)->mutable_read()->set_build_id("../etc");
  AddRead(request, 5)->mutable_read()->set_file(v1::BUILD_FILE_UNSPECIFIED);
  AddRead(request, 6)->mutable_read()->set_offset(1ull << 50);
  const auto codes = Ask(request, 6);
  const std::multimap<uint64_t, int> expected{{1, 0}, {2, 3}, {3, 3}, {4, 3}, {5, 3}, {6, 11}};
  EXPECT_EQ(codes, expected);
}

TEST_F(RawReadsTest, TwoReadsOfOneIdAreRefused) {
  v1::ReadBuildFileRequest request;
  // Good ones, too long to be answered on the spot, so both are under way.
  AddRead(request, 7)->mutable_read()->set_length(128 * 1024);
  AddRead(request, 7)->mutable_read()->set_length(128 * 1024);
  const auto codes = Ask(request, 2);
  const std::multimap<uint64_t, int> expected{{7, 3}, {7, 0}};  // The refusal comes first.
  EXPECT_EQ(codes, expected);
}

TEST_F(RawReadsTest, ReadsOfOneMessageBeyondWhatAStreamMayHaveUnderWayAreRefused) {
  v1::ReadBuildFileRequest request;
  for (uint64_t id = 1; id <= 600; ++id) AddRead(request, id);
  const auto codes = Ask(request, 600);
  for (const auto& [id, code] : codes) EXPECT_EQ(code, id <= 512 ? 0 : 8) << id;
  EXPECT_EQ(codes.size(), 600u);
}

TEST_F(RawReadsTest, AMessageOfReadsWithoutNumberEndsTheStreamUnparsed) {
  v1::ReadBuildFileRequest request;
  for (uint64_t id = 1; id <= 13'026; ++id) request.add_reads()->set_id(id);
  EXPECT_LT(request.ByteSizeLong(), 70'000u);
  grpc::ClientContext context;
  const auto stream = stub_->ReadBuildFile(&context);
  EXPECT_TRUE(stream->Write(request));
  v1::ReadBuildFileResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

// gRPC allows no Finish beside a Write: the end waits until the answers under way are written.
TEST_F(RawReadsTest, AMalformedRequestBehindAnswersUnderWayEndsTheStreamAfterThem) {
  v1::ReadBuildFileRequest reads;
  for (uint64_t id = 1; id <= 400; ++id) {
    AddRead(reads, id)->mutable_read()->set_length(256 * 1024);
  }
  grpc::GenericStub stub(
      grpc::CreateChannel(served_.address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, "/peerchunk.v1.ChunkService/ReadBuildFile", &queue);
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(&tag);
  queue.Next(&tag, &ok);
  for (const std::string& bytes : {reads.SerializeAsString(), std::string("\xff\xff\xff")}) {
    grpc::Slice slice(bytes);
    call->Write(grpc::ByteBuffer(&slice, 1), &tag);
    queue.Next(&tag, &ok);
  }
  grpc::ByteBuffer answer;
  do {
    call->Read(&answer, &tag);
    queue.Next(&tag, &ok);
  } while (ok);
  grpc::Status status;
  call->Finish(&status, &tag);
  queue.Next(&tag, &ok);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RawReadsTest, MalformedRequestEndsTheStream) {
  grpc::GenericStub stub(
      grpc::CreateChannel(served_.address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, "/peerchunk.v1.ChunkService/ReadBuildFile", &queue);
  grpc::Slice garbage("\xff\xff\xff");
  grpc::Status status;
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(&tag);
  queue.Next(&tag, &ok);
  call->Write(grpc::ByteBuffer(&garbage, 1), &tag);
  queue.Next(&tag, &ok);
  call->Finish(&status, &tag);
  queue.Next(&tag, &ok);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace peerchunk
