// A port of the public original's form: 4 KiB messages, generated code, one RPC per read, no
// checks.
#include <fcntl.h>

#include <algorithm>
#include <map>

#include <grpcpp/grpcpp.h>

#include "bench/contender.h"
#include "naive.grpc.pb.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

class Service final : public NaiveChunkService::Service {
 public:
  explicit Service(const Samples& samples) {
    for (const Sample& sample : samples.files) {
      files_[sample.name] = *File::Open(samples.PathOf(sample), O_RDONLY);
    }
  }

  grpc::Status ReadAt(grpc::ServerContext*, const NaiveReadRequest* request,
                      grpc::ServerWriter<NaiveChunk>* writer) override {
    const File& file = files_.at(request->file_name());
    std::string page(kPageBytes, '\0');
    NaiveChunk chunk;
    for (int64_t done = 0; done < request->length();) {
      const auto got =
          file.ReadAt(request->offset() + done, absl::MakeSpan(page.data(), kPageBytes));
      if (!got.ok() || *got == 0) return {grpc::StatusCode::INTERNAL, "cannot read"};
      chunk.set_data(page.data(), *got);
      if (!writer->Write(chunk)) break;
      done += static_cast<int64_t>(*got);
    }
    return grpc::Status::OK;
  }

 private:
  std::map<std::string, File> files_;  // By name.
};

absl::Status Serve(const Samples& samples, const ServerProcess::Ready& ready) {
  Service service(samples);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return absl::UnavailableError("cannot listen");
  ready(port);
  server->Wait();
  return absl::OkStatus();
}

class NaiveClient final : public Client {
 public:
  explicit NaiveClient(int port)
      : stub_(NaiveChunkService::NewStub(grpc::CreateChannel(
            "127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()))) {}

  absl::Status ReadAll(const BulkRead& work) override {
    File file;
    if (IsFile(work.to)) {
      PEERCHUNK_ASSIGN_OR_RETURN(file, File::Open(work.path, O_RDWR | O_CREAT));
    }
    return InParts(work.sample.size, work.streams, [&](const Part& part) {
      return ReadRange(work.sample, part.offset, part.length,
                       [&](uint64_t offset, const std::string& data) -> absl::Status {
                         if (file.is_open()) return file.WriteAt(offset, data);
                         if (!work.memory.empty()) {
                           std::copy(data.begin(), data.end(), &work.memory[offset]);
                         }
                         return absl::OkStatus();
                       });
    });
  }

  absl::StatusOr<ReadFigures> Read(const RandomReads& reads) override {
    return ReadOnThreads(reads, [&](int, uint64_t offset) {
      return ReadRange(reads.sample, offset, reads.bytes,
                       [](uint64_t, const std::string&) { return absl::OkStatus(); });
    });
  }

  absl::StatusOr<ReadFigures> ReadUnderBulk(const RandomReads& reads) override {
    return ReadDuring([&] { return ReadAll({.sample = reads.sample}); },
                      [&] { return Read(reads); });
  }

 private:
  using Take = std::function<absl::Status(uint64_t offset, const std::string& data)>;

  absl::Status ReadRange(const Sample& sample, uint64_t offset, uint64_t length, const Take& take) {
    grpc::ClientContext context;
    NaiveReadRequest request;
    request.set_build_id("6f1c2a52-1111-4222-8333-0123456789ab");
    request.set_file_name(sample.name);
    request.set_offset(static_cast<int64_t>(offset));
    request.set_length(static_cast<int64_t>(length));
    const auto reader = stub_->ReadAt(&context, request);
    NaiveChunk chunk;
    uint64_t got = 0;
    for (; reader->Read(&chunk); got += chunk.data().size()) {
      PEERCHUNK_RETURN_IF_ERROR(take(offset + got, chunk.data()));
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok() || got != length) {
      return absl::InternalError("a naive read failed: " + status.error_message());
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<NaiveChunkService::Stub> stub_;
};

}  // namespace

Contender NaivePort() {
  return {.name = kNaivePort,
          .serve =
              [](const Samples& samples) {
                return ServerProcess::Start(
                    [&](const ServerProcess::Ready& ready) { return Serve(samples, ready); });
              },
          .connect = [](const Samples&, int port) -> absl::StatusOr<std::unique_ptr<Client>> {
            return std::make_unique<NaiveClient>(port);
          }};
}

}  // namespace peerchunk::bench
