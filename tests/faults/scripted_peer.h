#pragma once

#include <functional>
#include <memory>
#include <string>

#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {

// A ChunkService that knows a build and serves it as a source does, but for what its script does to
// the messages of each GetBuildFile. On a loopback port of its own.
class ScriptedPeer final : private v1::ChunkService::Service {
 public:
  // What to do with a message on its way; `data_offset` is that of its bytes.
  enum class Then { kSend, kEndWithOk, kFall };  // kFall: silent until the caller leaves.
  using Script = std::function<Then(v1::GetBuildFileResponse& message)>;

  ScriptedPeer(const TestBuild& build, Script script) : build_(build), script_(std::move(script)) {
    // When the last of gRPC goes, it waits up to 10 s for a thread that polls: it stays to the end
    // of the process.
    [[maybe_unused]] static const bool stays = (grpc_init(), true);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~ScriptedPeer() override { server_->Shutdown(std::chrono::system_clock::now()); }

  const std::string& address() const { return address_; }

 private:
  const std::string* Find(const std::string& build, v1::BuildFile file) const {
    if (build != build_.id.ToString()) return nullptr;
    const auto found = build_.files.find(static_cast<FileKind>(file));
    return found == build_.files.end() ? nullptr : &found->second;
  }
  static void FillHead(const std::string* bytes, v1::FileHead& head) {
    head.mutable_status()->set_state(v1::UPLOADING);
    head.set_availability(bytes == nullptr ? v1::ABSENT : v1::AVAILABLE);
    if (bytes == nullptr) return;
    head.set_total_size(bytes->size());
    head.set_file_crc32c(Crc32c(*bytes));
  }

  grpc::Status GetBuildFileInfo(grpc::ServerContext*, const v1::GetBuildFileInfoRequest* request,
                                v1::FileHead* head) override {
    FillHead(Find(request->build_id(), request->file()), *head);
    return grpc::Status::OK;
  }

  grpc::Status GetBuildFile(grpc::ServerContext* context, const v1::GetBuildFileRequest* request,
                            grpc::ServerWriter<v1::GetBuildFileResponse>* writer) override {
    const std::string* const bytes = Find(request->build_id(), request->file());
    const uint64_t size = bytes == nullptr ? 0 : bytes->size();
    uint64_t at = std::min(request->offset(), size);
    const uint64_t end =
        request->has_length() && request->length() < size - at ? at + request->length() : size;
    bool first = true;
    do {
      v1::GetBuildFileResponse message;
      if (first) FillHead(bytes, *message.mutable_head());
      first = false;
      const std::string data = at < end ? bytes->substr(at, std::min(kMiB, end - at)) : "";
      if (!data.empty()) {
        message.mutable_extent()->set_offset(at);
        message.mutable_extent()->set_crc32c(Crc32c(data));
        message.mutable_extent()->set_data(data);
      }
      at += data.size();
      if (at == end) {
        message.set_last(true);
        message.mutable_status()->set_state(v1::UPLOADING);
        message.set_next_offset(at);
      }
      const Then then =
          request->length() == 0 && request->has_length() ? Then::kSend : script_(message);
      if (then == Then::kEndWithOk) return grpc::Status::OK;
      while (then == Then::kFall) {
        if (context->IsCancelled()) return grpc::Status::CANCELLED;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (!writer->Write(message)) return grpc::Status::CANCELLED;
    } while (at < end);
    return grpc::Status::OK;
  }

  const TestBuild& build_;
  const Script script_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace peerchunk::test
