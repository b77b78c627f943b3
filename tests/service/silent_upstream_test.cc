// A node that is asked for what it has to fetch from a source that says nothing.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "tests/service/answers.h"
#include "tests/service/served_builds.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using test::Answer;
using test::MakeTestBuild;
using test::Read;
using test::ServedBuilds;
using test::TestBuild;

class SilentUpstreamTest : public testing::Test {
 protected:
  static constexpr size_t kRelays = 6;
  static constexpr uint64_t kChunk = 256 * kKiB;

  SilentUpstreamTest()
      : own_(MakeTestBuild({.memfile_bytes = 4 * kMiB, .seed = 1})),
        foreign_(MakeTestBuild({.memfile_bytes = 16 * kMiB, .seed = 2})),
        served_({.read_threads = 2,
                 .relay_threads = 2,
                 .max_relays = kRelays,
                 .max_relays_per_peer = kRelays,
                 .clock = &clock_},
                upstream_) {
    for (const auto& [kind, bytes] : foreign_.files) {
      memory_.Seed(BuildFileId{foreign_.id, kind}.ObjectPath(), bytes);
    }
    served_.Add(own_);
    const auto loaded = served_.templates->GetTemplate(foreign_.id, {}, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    loaded_ = *loaded;
    // The first chunk is here, the rest is not to be had.
    std::string page(kPageBytes, '?');
    EXPECT_TRUE(loaded_->Memfile()->ReadAt(FirstMapped(), absl::MakeSpan(page), {}).ok());
    const auto file = served_.templates->Resolve(Memfile(), true, true);
    EXPECT_TRUE(file.ok()) << file.status();
    // What is left of the chunk comes behind the page; it is not to be taken for a relay.
    while (file->file->PresentBytes(0, kChunk) < kChunk) std::this_thread::yield();
    upstream_->AddFault({.path = Memfile().ObjectPath(), .stall = true});
  }
  ~SilentUpstreamTest() override {
    upstream_->ClearFaults();
    served_.Stop();
  }

  BuildFileId Memfile() const { return {foreign_.id, FileKind::kMemfile}; }
  // The offset on the device of the diff's first byte.
  uint64_t FirstMapped() const {
    const auto header = Header::Decode(foreign_.files.at(FileKind::kMemfileHeader));
    for (const Mapping& mapping : header->mappings()) {
      if (!mapping.is_zero() && mapping.storage_offset == 0) return mapping.offset;
    }
    ADD_FAILURE() << "nothing is mapped";
    return 0;
  }
  PeerRequest Missing(uint64_t chunk) const {
    return {
        .file = Memfile(), .offset = (8 + chunk) * kChunk, .length = kPageBytes, .relays_left = 1};
  }
  void ExpectOwnServed() {
    const std::string& memfile = own_.files.at(FileKind::kMemfile);
    const BuildFileId file{own_.id, FileKind::kMemfile};
    const auto head = served_.Client()->GetBuildFileInfo({.file = file}, {});
    EXPECT_TRUE(head.ok()) << head.status();
    const Answer whole = Read(*served_.Client(PeerLane::kBulk), {.file = file});
    EXPECT_TRUE(whole.status.ok()) << whole.status;
    EXPECT_TRUE(whole.bytes == memfile);
    const Answer page =
        Read(*served_.Client(), {.file = file, .offset = kPageBytes, .length = kPageBytes});
    EXPECT_TRUE(page.bytes == memfile.substr(kPageBytes, kPageBytes));
    const Answer held =
        Read(*served_.Client(), {.file = Memfile(), .offset = 0, .length = 100, .relays_left = 1});
    EXPECT_TRUE(held.bytes == foreign_.files.at(FileKind::kMemfile).substr(0, 100));
  }

  test::SimulatedClock clock_;
  test::MemoryStorageProvider memory_{clock_};
  std::shared_ptr<test::FaultStorageProvider> upstream_ =
      std::make_shared<test::FaultStorageProvider>(memory_, clock_);
  const TestBuild own_;
  const TestBuild foreign_;
  ServedBuilds served_;
  std::shared_ptr<Template> loaded_;
};

TEST_F(SilentUpstreamTest, WhatIsHereIsServedWhileStreamsWaitForRelays) {
  const auto client = served_.Client(PeerLane::kBulk);
  std::vector<std::unique_ptr<PeerStream>> waiting;
  for (uint64_t i = 0; i < kRelays; ++i) {
    waiting.push_back(client->GetBuildFile(Missing(i), {}));
    // Nobody but who reads drives the client's connection.
    const auto none = waiting.back()->Next(Clock::Real().Now() + absl::Milliseconds(100));
    EXPECT_TRUE(absl::IsDeadlineExceeded(none.status())) << none.status();
  }
  upstream_->AwaitStalled(2);
  ExpectOwnServed();
  // One more is refused at once, as soon as the others are all there.
  const auto ask_for_a_moment = [&](uint64_t chunk) {
    const auto stream = client->GetBuildFile(Missing(chunk), {});
    return stream->Next(Clock::Real().Now() + absl::Milliseconds(100)).status();
  };
  absl::Status status;
  do {
    status = ask_for_a_moment(kRelays);
  } while (!absl::IsResourceExhausted(status));
  EXPECT_TRUE(RetryAfter(status).has_value());
  // When those who asked have gone, so have the fetches for them: there is room again.
  waiting.clear();
  do {
    status = ask_for_a_moment(kRelays + 1);
  } while (absl::IsResourceExhausted(status));
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

// As a client that speaks the wire by itself.
class SilentReadsTest : public SilentUpstreamTest {
 protected:
  SilentReadsTest()
      : stub_(v1::ChunkService::NewStub(
            grpc::CreateChannel(served_.address(), grpc::InsecureChannelCredentials()))),
        stream_(stub_->ReadBuildFile(&context_)) {}

  void Send(uint64_t id, uint32_t timeout_ms) {
    v1::ReadBuildFileRequest request;
    v1::FileRead* const read = request.add_reads();
    read->set_id(id);
    read->set_timeout_ms(timeout_ms);
    const PeerRequest missing = Missing(id);
    read->mutable_read()->set_build_id(missing.file.build.ToString());
    read->mutable_read()->set_file(v1::BUILD_FILE_MEMFILE);
    read->mutable_read()->set_offset(missing.offset);
    read->mutable_read()->set_length(kPageBytes);
    read->mutable_read()->set_relays_left(1);
    EXPECT_TRUE(stream_->Write(request));
  }
  v1::FileReadPart Next() {
    while (parts_.empty()) {
      v1::ReadBuildFileResponse response;
      EXPECT_TRUE(stream_->Read(&response));
      parts_.insert(parts_.end(), response.parts().begin(), response.parts().end());
    }
    v1::FileReadPart part = parts_.front();
    parts_.erase(parts_.begin());
    return part;
  }

  grpc::ClientContext context_;
  const std::unique_ptr<v1::ChunkService::Stub> stub_;
  const std::unique_ptr<
      grpc::ClientReaderWriter<v1::ReadBuildFileRequest, v1::ReadBuildFileResponse>>
      stream_;
  std::vector<v1::FileReadPart> parts_;
};

TEST_F(SilentReadsTest, WhatIsHereIsServedWhileReadsWaitForRelays) {
  for (uint64_t id = 1; id <= kRelays; ++id) Send(id, 0);
  upstream_->AwaitStalled(2);
  ExpectOwnServed();
  Send(kRelays + 1, 0);
  const v1::FileReadPart refused = Next();
  EXPECT_EQ(refused.error().code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_GT(refused.error().retry_after_ms(), 0u);
}

TEST_F(SilentReadsTest, AReadThatRunsOutOfItsTimeEndsAlone) {
  Send(1, 0);
  Send(2, 200);
  upstream_->AwaitStalled(2);
  clock_.Advance(absl::Milliseconds(200));
  const v1::FileReadPart part = Next();
  EXPECT_EQ(part.id(), 2u);
  EXPECT_EQ(part.error().code(), static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  upstream_->ClearFaults();
  EXPECT_EQ(Next().id(), 1u);
}

TEST_F(SilentReadsTest, ACancelledReadEndsAlone) {
  Send(1, 0);
  Send(2, 0);
  upstream_->AwaitStalled(2);
  v1::ReadBuildFileRequest request;
  request.add_cancelled(2);
  EXPECT_TRUE(stream_->Write(request));
  const v1::FileReadPart part = Next();
  EXPECT_EQ(part.id(), 2u);
  EXPECT_EQ(part.error().code(), static_cast<int>(absl::StatusCode::kCancelled));
  upstream_->ClearFaults();
  const v1::FileReadPart other = Next();
  EXPECT_EQ(other.id(), 1u);
  EXPECT_FALSE(other.has_error());
}

}  // namespace
}  // namespace peerchunk
