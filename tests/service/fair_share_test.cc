// Memory divided between peers that read, peers that do not, and peers that ask for more than there
// is.
#include <atomic>
#include <fstream>
#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "tests/service/answers.h"
#include "tests/service/served_builds.h"
#include "tests/support/resident_memory.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

using test::Answer;
using test::MakeTestBuild;
using test::Read;
using test::ServedBuilds;
using test::TestBuild;

// Asks for much and reads nothing of it, as a peer of its own or as the one that tests read as.
class NeverReads {
 public:
  NeverReads(const std::string& address, const TestBuild& build)
      : stub_(v1::ChunkService::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))),
        build_(build) {}
  ~NeverReads() {
    for (auto& context : contexts_) context->TryCancel();
  }

  void AskForWholeFiles(int count) {
    for (int i = 0; i < count; ++i) {
      v1::GetBuildFileRequest request;
      Fill(request);
      streams_.push_back(stub_->GetBuildFile(NewContext(), request));
    }
  }
  void AskForReads(int count) {
    v1::ReadBuildFileRequest request;
    for (int i = 0; i < count; ++i) {
      v1::FileRead* const read = request.add_reads();
      read->set_id(static_cast<uint64_t>(i) + 1);
      Fill(*read->mutable_read());
      read->mutable_read()->set_length(kMiB);
    }
    reads_ = stub_->ReadBuildFile(NewContext());
    EXPECT_TRUE(reads_->Write(request));
  }
  grpc::Status EndOfFirstStream() {
    v1::GetBuildFileResponse response;
    while (streams_.front()->Read(&response)) {
    }
    return streams_.front()->Finish();
  }

 private:
  grpc::ClientContext* NewContext() {
    contexts_.push_back(std::make_unique<grpc::ClientContext>());
    return contexts_.back().get();
  }
  void Fill(v1::GetBuildFileRequest& request) const {
    request.set_build_id(build_.id.ToString());
    request.set_file(v1::BUILD_FILE_MEMFILE);
  }

  std::vector<std::unique_ptr<grpc::ClientContext>> contexts_;
  const std::unique_ptr<v1::ChunkService::Stub> stub_;
  const TestBuild& build_;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GetBuildFileResponse>>> streams_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ReadBuildFileRequest, v1::ReadBuildFileResponse>>
      reads_;
};

constexpr uint64_t kLimit = 8 * kMiB;

class FairShareTest : public testing::Test {
 protected:
  FairShareTest() : build_(MakeTestBuild({.memfile_bytes = 32 * kMiB})) {}

  ChunkService::Options Options() {
    return {.max_bytes_in_flight = kLimit,
            .demand_reserve_bytes = kMiB,
            .stall_timeout = absl::Hours(10),
            .clock = &clock_};
  }
  void Serve(const ChunkService::Options& options) {
    served_ = std::make_unique<ServedBuilds>(options);
    served_->Add(build_);
  }
  int64_t Gauge(const char* name) { return served_->metrics.gauge(name).value(); }
  int64_t InFlight() { return Gauge("peerchunk_served_in_flight_bytes"); }
  static void Await(const std::function<bool()>& condition) {
    while (!condition()) std::this_thread::yield();
  }
  void ExpectServed(ServedBuilds& served) {
    const std::string& memfile = build_.files.at(FileKind::kMemfile);
    const BuildFileId file{build_.id, FileKind::kMemfile};
    for (uint64_t offset = 0; offset < 64 * kPageBytes; offset += kPageBytes) {
      const Answer page = Read(*served.Client(PeerLane::kDemand),
                               {.file = file, .offset = offset, .length = kPageBytes});
      ASSERT_TRUE(page.status.ok()) << page.status;
      ASSERT_TRUE(page.bytes == memfile.substr(offset, kPageBytes));
    }
    const Answer whole = Read(*served.Client(PeerLane::kBulk), {.file = file, .prefetch = true});
    ASSERT_TRUE(whole.status.ok()) << whole.status;
    ASSERT_TRUE(whole.bytes == memfile);
  }

  test::SimulatedClock clock_;
  const TestBuild build_;
  std::unique_ptr<ServedBuilds> served_;
};

TEST_F(FairShareTest, APeerThatNeverReadsStreamsTakesNothingFromOthers) {
  Serve(Options());
  NeverReads hostile(served_->other_address(), build_);
  hostile.AskForWholeFiles(20);
  Await([&] { return InFlight() >= static_cast<int64_t>(kLimit / 4 - kMiB); });
  ExpectServed(*served_);
}

TEST_F(FairShareTest, APeerThatNeverReadsAnswersTakesNothingFromOthers) {
  Serve(Options());
  NeverReads hostile(served_->other_address(), build_);
  hostile.AskForReads(100);
  Await([&] { return InFlight() >= static_cast<int64_t>(kLimit / 4 - kMiB); });
  ExpectServed(*served_);
}

TEST_F(FairShareTest, ACallWhoseReaderDoesNotReadIsCancelledInTheEnd) {
  ChunkService::Options options = Options();
  options.stall_timeout = absl::Seconds(30);
  options.longest_demand_wait = absl::InfiniteDuration();  // More than any window takes in.
  Serve(options);
  const auto await_stalled = [&](uint64_t count) {
    Await([&] { return InFlight() > 0; });
    while (served_->metrics.CounterValue("peerchunk_served_stalled_calls_total") < count) {
      clock_.Advance(absl::Seconds(31));
      std::this_thread::yield();
    }
    Await([&] { return InFlight() == 0; });
  };
  NeverReads stream(served_->other_address(), build_);
  stream.AskForWholeFiles(1);
  await_stalled(1);
  EXPECT_EQ(stream.EndOfFirstStream().error_code(), grpc::StatusCode::CANCELLED);
  NeverReads reads(served_->other_address(), build_);
  reads.AskForReads(100);
  await_stalled(2);
}

TEST_F(FairShareTest, OneThatReadsSlowlyIsNotTakenForOneThatDoesNot) {
  ChunkService::Options options = Options();
  options.stall_timeout = absl::Seconds(30);
  Serve(options);
  const auto stream =
      served_->Client(PeerLane::kBulk)->GetBuildFile({.file = {build_.id, FileKind::kMemfile}}, {});
  Answer answer;
  while (!answer.last) {
    auto message = stream->Next(absl::InfiniteFuture());
    ASSERT_TRUE(message.ok()) << message.status();
    ASSERT_TRUE(message->has_value());
    test::Take(**message, 0, answer);
    clock_.Advance(absl::Milliseconds(100));
  }
  EXPECT_TRUE(answer.bytes == build_.files.at(FileKind::kMemfile));
}

// The same peer's other streams have taken its share.
TEST_F(FairShareTest, WhatWouldWaitTooLongIsRefusedWithAHint) {
  ChunkService::Options options = Options();
  options.retry_hint = absl::Milliseconds(321);
  options.max_streams_per_peer = 1000;
  Serve(options);
  ExpectServed(*served_);  // Checked and in memory: no read waits for the disk below.
  NeverReads before(served_->address(), build_);
  const BuildFileId file{build_.id, FileKind::kMemfile};
  struct Row {
    PeerLane lane;
    PeerRequest request;
    absl::Duration longest_wait;  // What nobody waits for may wait for longer.
  };
  const std::vector<Row> rows{
      {PeerLane::kBulk, {.file = file, .length = 256 * kKiB}, options.longest_demand_wait},
      {PeerLane::kBulk,
       {.file = file, .length = 256 * kKiB, .prefetch = true},
       options.longest_prefetch_wait},
      {PeerLane::kDemand, {.file = file, .length = 256 * kKiB}, options.longest_demand_wait}};
  for (const Row& row : rows) {
    Answer answer;
    absl::Duration waited;
    do {  // Until those that do not read have all of the share, or stand in line for it.
      before.AskForWholeFiles(1);
      answer = {};
      const absl::Time asked = clock_.Now();
      const std::unique_ptr<PeerStream> stream =
          served_->Client(row.lane)->GetBuildFile(row.request, {});
      while (answer.status.ok() && !answer.last) {
        const auto message = stream->Next(Clock::Real().Now() + absl::Milliseconds(10));
        if (message.ok()) {
          ASSERT_TRUE(message->has_value());
          test::Take(**message, 0, answer);
        } else if (stream->IsAlive()) {
          clock_.Advance(absl::Milliseconds(60));  // The server's time; the client has its own.
        } else {
          answer.status = message.status();
        }
      }
      waited = clock_.Now() - asked;
    } while (answer.status.ok());
    EXPECT_GE(waited, row.longest_wait);
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kResourceExhausted) << answer.status;
    EXPECT_EQ(RetryAfter(answer.status), absl::Milliseconds(321));
    EXPECT_EQ(answer.bytes, "");
  }
}

TEST_F(FairShareTest, ACancelledCallLeavesTheLineAndGivesBackItsPlace) {
  ChunkService::Options options = Options();
  options.max_streams_per_peer = 6;
  Serve(options);
  NeverReads before(served_->address(), build_);
  before.AskForWholeFiles(5);
  Await([&] { return InFlight() >= static_cast<int64_t>(kLimit / 4 - kMiB); });
  for (int round = 0; round < 5; ++round) {
    // Waits for memory that will not come; the clock stands still, so it is not refused for that.
    const auto begin = [&] {
      return served_->Client(PeerLane::kBulk)
          ->GetBuildFile({.file = {build_.id, FileKind::kMemfile}}, {});
    };
    std::unique_ptr<PeerStream> waits = begin();
    const auto ask = [&] {
      return served_->Client()
          ->GetBuildFileInfo({.file = {build_.id, FileKind::kMetadata}}, {})
          .status();
    };
    // There is no place beside it, and there is one when it has gone.
    Await([&] {
      // Nobody but who reads drives the client's connection. The place of the round before may have
      // been given back too late for it.
      const auto next = waits->Next(Clock::Real().Now() + absl::Milliseconds(10));
      if (absl::IsResourceExhausted(next.status())) waits = begin();
      return absl::IsResourceExhausted(ask());
    });
    waits = nullptr;
    Await([&] { return ask().ok(); });
  }
}

// Cancelled while its file is being opened, so that it finds out when it begins to wait for memory;
// nothing else happens on its stream then.
TEST_F(FairShareTest, AReadThatIsCancelledBeforeItWaitsIsAnsweredAllTheSame) {
  ChunkService::Options options = Options();
  options.queue_threads = 1;  // Events are seen in order.
  Serve(options);
  const TestBuild unopened = MakeTestBuild({.memfile_bytes = 2 * kMiB, .seed = 2});
  served_->Add(unopened);
  NeverReads before(served_->address(), build_);
  before.AskForWholeFiles(20);
  Await([&] { return InFlight() >= static_cast<int64_t>(kLimit / 4 - kMiB); });
  const auto open =
      std::make_shared<std::latch>(1);  // Of the threads, too, for as long as they run.
  for (int thread = 0; thread < 4; ++thread) {
    served_->pool.Run(Priority::kDemand, [open] { open->wait(); });
  }
  v1::ReadBuildFileRequest request;
  v1::FileRead* const read = request.add_reads();
  read->set_id(1);
  read->mutable_read()->set_build_id(unopened.id.ToString());
  read->mutable_read()->set_file(v1::BUILD_FILE_MEMFILE);
  read->mutable_read()->set_length(kMiB);
  request.add_cancelled(1);
  grpc::ClientContext context;
  const auto stub = v1::ChunkService::NewStub(
      grpc::CreateChannel(served_->address(), grpc::InsecureChannelCredentials()));
  const auto stream = stub->ReadBuildFile(&context);
  EXPECT_TRUE(stream->Write(request));
  EXPECT_TRUE(stream->WritesDone());
  // The server has seen the end of the requests once it answers what came behind it.
  v1::GetBuildFileInfoRequest ask;
  ask.set_build_id(build_.id.ToString());
  ask.set_file(v1::BUILD_FILE_MEMFILE);
  grpc::ClientContext ask_context;
  v1::FileHead head;
  EXPECT_TRUE(stub->GetBuildFileInfo(&ask_context, ask, &head).ok());
  open->count_down();
  v1::ReadBuildFileResponse response;
  ASSERT_TRUE(stream->Read(&response));
  ASSERT_EQ(response.parts_size(), 1);
  EXPECT_EQ(response.parts(0).error().code(), grpc::StatusCode::CANCELLED);
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

// Sixteen readers of a small file, then of one that is sixteen times as large.
TEST_F(FairShareTest, MemoryIsFlatInTheSizeOfTheFile) {
  if (test::kUnderAsan) GTEST_SKIP() << "a sanitizer keeps what was freed";
  const TestBuild small = MakeTestBuild({.memfile_bytes = 2 * kMiB, .seed = 2});
  Serve(Options());
  served_->Add(small);
  const auto peak_of = [&](const TestBuild& build) {
    const BuildFileId file{build.id, FileKind::kMemfile};
    const uint64_t size = build.files.at(FileKind::kMemfile).size();
    std::ofstream("/proc/self/clear_refs") << "5";  // The peak begins anew.
    std::vector<std::thread> readers;
    for (int reader = 0; reader < 16; ++reader) {
      readers.emplace_back([&, client = served_->Client(PeerLane::kBulk)] {
        for (uint64_t moved = 0; moved < 8 * kMiB; moved += size) {
          const auto stream = client->GetBuildFile({.file = file}, {});
          uint64_t got = 0;
          auto message = stream->Next(absl::InfiniteFuture());
          for (; message.ok() && message->has_value();
               message = stream->Next(absl::InfiniteFuture())) {
            if ((*message)->extent) got += (*message)->extent->length;
          }
          ASSERT_TRUE(message.ok()) << message.status();
          ASSERT_EQ(got, size);
        }
      });
    }
    for (std::thread& reader : readers) reader.join();
    return test::OfThisProcess("VmHWM");
  };
  peak_of(small);  // What is kept from the first time on is no matter of the size.
  const uint64_t small_peak = peak_of(small);
  const uint64_t large_peak = peak_of(build_);
  RecordProperty("large_over_small_kib", std::to_string((static_cast<int64_t>(large_peak) -
                                                         static_cast<int64_t>(small_peak)) /
                                                        static_cast<int64_t>(kKiB)));
  EXPECT_LT(large_peak, small_peak + 8 * kMiB) << "a quarter of the large file";
  EXPECT_LE(Gauge("peerchunk_served_in_flight_peak_bytes"), static_cast<int64_t>(kLimit));
}

}  // namespace
}  // namespace peerchunk
