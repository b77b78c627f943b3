// A port of the public original's form: 4 KiB messages, generated code, one RPC per read, no
// checks.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "bench/contender.h"
#include "naive.grpc.pb.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

class Service final : public NaiveChunkService::Service {
 public:
  explicit Service(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}

  grpc::Status ReadAt(grpc::ServerContext*, const NaiveReadRequest* request,
                      grpc::ServerWriter<NaiveChunk>* writer) override {
    std::string page(kPageBytes, '\0');
    NaiveChunk chunk;
    for (int64_t done = 0; done < request->length();) {
      const ssize_t got = pread(fd_, page.data(), page.size(), request->offset() + done);
      if (got <= 0) break;
      chunk.set_data(page.data(), got);
      if (!writer->Write(chunk)) break;
      done += got;
    }
    return grpc::Status::OK;
  }

 private:
  const int fd_;
};

class Naive final : public Contender {
 public:
  Naive(const Sample& sample, std::unique_ptr<ServerProcess> server)
      : sample_(sample),
        server_(std::move(server)),
        stub_(NaiveChunkService::NewStub(grpc::CreateChannel(
            "127.0.0.1:" + std::to_string(server_->port()), grpc::InsecureChannelCredentials()))) {}

  std::string name() const override { return "naive port (4 KiB messages)"; }
  absl::Status Connect() override {
    stub_ = NaiveChunkService::NewStub(grpc::CreateChannel(
        "127.0.0.1:" + std::to_string(server_->port()), grpc::InsecureChannelCredentials()));
    return absl::OkStatus();
  }
  absl::Status ReadAll() override { return Read(0, sample_.size); }

  absl::Status ReadPages(uint64_t count, int depth,
                         const std::function<uint64_t()>& next) override {
    std::vector<std::vector<uint64_t>> offsets(depth);
    for (uint64_t i = 0; i < count; ++i) offsets[i % depth].push_back(next());
    std::vector<std::thread> threads;
    std::atomic<bool> failed{false};
    for (int i = 0; i < depth; ++i) {
      threads.emplace_back([&, i] {
        for (const uint64_t offset : offsets[i]) {
          if (!Read(offset, kPageBytes).ok()) failed = true;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    return failed ? absl::InternalError("a naive read failed") : absl::OkStatus();
  }

 private:
  absl::Status Read(uint64_t offset, uint64_t length) {
    grpc::ClientContext context;
    NaiveReadRequest request;
    request.set_build_id("6f1c2a52-1111-4222-8333-0123456789ab");
    request.set_file_name("memfile");
    request.set_offset(offset);
    request.set_length(length);
    const auto reader = stub_->ReadAt(&context, request);
    NaiveChunk chunk;
    uint64_t got = 0;
    while (reader->Read(&chunk)) got += chunk.data().size();
    const grpc::Status status = reader->Finish();
    if (!status.ok() || got != length) return absl::InternalError(status.error_message());
    return absl::OkStatus();
  }

  const Sample sample_;
  const std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<NaiveChunkService::Stub> stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Contender>> StartNaive(const Sample& sample) {
  PEERCHUNK_ASSIGN_OR_RETURN(auto process, ServerProcess::Start([&](const auto& ready) {
                               Service service(sample.path);
                               grpc::ServerBuilder builder;
                               int port = 0;
                               builder.AddListeningPort("127.0.0.1:0",
                                                        grpc::InsecureServerCredentials(), &port);
                               builder.RegisterService(&service);
                               const auto server = builder.BuildAndStart();
                               ready(port);
                               server->Wait();
                             }));
  return std::make_unique<Naive>(sample, std::move(process));
}

}  // namespace peerchunk::bench
