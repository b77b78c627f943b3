#include "tests/support/gcs/fake_gcs_server.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

#include <absl/strings/str_cat.h>
#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>

#include "base/grpc_status.h"
#include "google/storage/v2/storage.grpc.pb.h"

namespace peerchunk::test {
namespace {

namespace v2 = google::storage::v2;

std::string Header(const grpc::ServerContext& context, const char* name) {
  const auto it = context.client_metadata().find(name);
  if (it == context.client_metadata().end()) return "";
  return std::string(it->second.data(), it->second.size());
}

FakeCall CallOf(grpc::ServerContext& context, GcsRpc rpc, const std::string& bucket) {
  FakeCall call;
  call.rpc = rpc;
  call.bucket = bucket;
  call.routing = Header(context, "x-goog-request-params");
  call.token = Header(context, "x-goog-gcs-idempotency-token");
  call.connection = context.peer();
  call.cancelled = [&context] { return context.IsCancelled(); };
  return call;
}

// For requests that name no bucket: the routing header does.
std::string BucketFromRouting(const grpc::ServerContext& context) {
  constexpr std::string_view kStart = "bucket=projects%2F_%2Fbuckets%2F";
  const std::string routing = Header(context, "x-goog-request-params");
  if (routing.substr(0, kStart.size()) != kStart) return "";
  return absl::StrCat("projects/_/buckets/", routing.substr(kStart.size()));
}

void ToMessage(const GcsObject& object, const std::string& bucket, v2::Object& message) {
  message.set_name(object.name);
  message.set_bucket(bucket);
  message.set_generation(object.generation);
  message.set_metageneration(1);
  message.set_size(static_cast<int64_t>(object.size));
  if (object.crc32c) message.mutable_checksums()->set_crc32c(*object.crc32c);
  message.mutable_metadata()->insert(object.metadata.begin(), object.metadata.end());
}

GcsWriteSpec SpecOf(const v2::WriteObjectSpec& message) {
  GcsWriteSpec spec;
  spec.object = message.resource().name();
  spec.metadata = {message.resource().metadata().begin(), message.resource().metadata().end()};
  if (message.has_if_generation_match()) spec.if_generation = message.if_generation_match();
  if (message.has_object_size()) spec.object_size = static_cast<uint64_t>(message.object_size());
  return spec;
}

template <typename Response>
void ToResponse(const GcsWriteStatus& status, const std::string& bucket, Response& response) {
  if (status.resource) {
    ToMessage(*status.resource, bucket, *response.mutable_resource());
  } else {
    response.set_persisted_size(static_cast<int64_t>(status.persisted_size));
    if (status.persisted_crc32c) {
      response.mutable_persisted_data_checksums()->set_crc32c(*status.persisted_crc32c);
    }
  }
}

class Service final : public v2::Storage::Service {
 public:
  explicit Service(FakeGcs& fake) : fake_(fake) {}

  grpc::Status GetObject(grpc::ServerContext* context, const v2::GetObjectRequest* request,
                         v2::Object* response) override {
    const absl::StatusOr<GcsObject> object =
        fake_.GetObject(CallOf(*context, GcsRpc::kGetObject, request->bucket()), request->object());
    if (object.ok()) ToMessage(*object, request->bucket(), *response);
    return ToGrpcStatus(object.status());
  }

  grpc::Status ReadObject(grpc::ServerContext* context, const v2::ReadObjectRequest* request,
                          grpc::ServerWriter<v2::ReadObjectResponse>* writer) override {
    if (request->read_offset() < 0 || request->read_limit() < 0) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "a negative range");
    }
    const std::unique_ptr<FakeGcs::Reading> reading = fake_.ReadObject(
        CallOf(*context, GcsRpc::kReadObject, request->bucket()),
        {request->object(), request->generation(), static_cast<uint64_t>(request->read_offset()),
         static_cast<uint64_t>(request->read_limit())});
    GcsReadMessage message;
    while (reading->Next(message)) {
      v2::ReadObjectResponse response;
      *response.mutable_checksummed_data()->mutable_content() = message.content;
      if (message.content_crc32c) {
        response.mutable_checksummed_data()->set_crc32c(*message.content_crc32c);
      }
      if (message.object_crc32c) {
        response.mutable_object_checksums()->set_crc32c(*message.object_crc32c);
      }
      if (message.complete_length) {
        response.mutable_content_range()->set_start(static_cast<int64_t>(*message.content_start));
        response.mutable_content_range()->set_complete_length(
            static_cast<int64_t>(*message.complete_length));
      }
      if (message.metadata) {
        ToMessage(*message.metadata, request->bucket(), *response.mutable_metadata());
      }
      if (!writer->Write(response)) return grpc::Status::CANCELLED;
    }
    return ToGrpcStatus(reading->status());
  }

  grpc::Status StartResumableWrite(grpc::ServerContext* context,
                                   const v2::StartResumableWriteRequest* request,
                                   v2::StartResumableWriteResponse* response) override {
    const v2::WriteObjectSpec& spec = request->write_object_spec();
    const absl::StatusOr<std::string> id = fake_.StartResumableWrite(
        CallOf(*context, GcsRpc::kStartResumableWrite, spec.resource().bucket()), SpecOf(spec));
    if (id.ok()) response->set_upload_id(*id);
    return ToGrpcStatus(id.status());
  }

  grpc::Status QueryWriteStatus(grpc::ServerContext* context,
                                const v2::QueryWriteStatusRequest* request,
                                v2::QueryWriteStatusResponse* response) override {
    const std::string bucket = BucketFromRouting(*context);
    const absl::StatusOr<GcsWriteStatus> status = fake_.QueryWriteStatus(
        CallOf(*context, GcsRpc::kQueryWriteStatus, bucket), request->upload_id());
    if (status.ok()) ToResponse(*status, bucket, *response);
    return ToGrpcStatus(status.status());
  }

  grpc::Status CancelResumableWrite(grpc::ServerContext* context,
                                    const v2::CancelResumableWriteRequest* request,
                                    v2::CancelResumableWriteResponse*) override {
    return ToGrpcStatus(fake_.CancelResumableWrite(
        CallOf(*context, GcsRpc::kCancelResumableWrite, BucketFromRouting(*context)),
        request->upload_id()));
  }

  grpc::Status WriteObject(grpc::ServerContext* context,
                           grpc::ServerReader<v2::WriteObjectRequest>* reader,
                           v2::WriteObjectResponse* response) override {
    v2::WriteObjectRequest request;
    if (!reader->Read(&request)) return ToGrpcStatus(absl::InvalidArgumentError("no message"));
    const std::string bucket = request.has_write_object_spec()
                                   ? request.write_object_spec().resource().bucket()
                                   : BucketFromRouting(*context);
    const std::unique_ptr<FakeGcs::Writing> writing =
        fake_.WriteObject(CallOf(*context, GcsRpc::kWriteObject, bucket));
    do {
      if (!request.checksummed_data().has_crc32c()) {
        return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "a message without CRC32C");
      }
      std::optional<GcsWriteSpec> spec;
      GcsWriteMessage message;
      if (request.has_upload_id()) message.upload_id = &request.upload_id();
      if (request.has_write_object_spec()) {
        spec = SpecOf(request.write_object_spec());
        message.spec = &*spec;
      }
      message.offset = static_cast<uint64_t>(request.write_offset());
      message.content = request.mutable_checksummed_data()->mutable_content();
      message.content_crc32c = request.checksummed_data().crc32c();
      if (request.object_checksums().has_crc32c()) {
        message.object_crc32c = request.object_checksums().crc32c();
      }
      message.finish = request.finish_write();
      const absl::Status status = writing->Receive(message);
      if (!status.ok()) return ToGrpcStatus(status);
    } while (reader->Read(&request));
    if (context->IsCancelled()) return grpc::Status::CANCELLED;
    const absl::StatusOr<GcsWriteStatus> status = writing->HalfClose();
    if (status.ok()) ToResponse(*status, bucket, *response);
    return ToGrpcStatus(status.status());
  }

  grpc::Status ComposeObject(grpc::ServerContext* context, const v2::ComposeObjectRequest* request,
                             v2::Object* response) override {
    const std::string& bucket = request->destination().bucket();
    GcsComposeRequest plain;
    plain.destination.object = request->destination().name();
    plain.destination.metadata = {request->destination().metadata().begin(),
                                  request->destination().metadata().end()};
    if (request->has_if_generation_match()) {
      plain.destination.if_generation = request->if_generation_match();
    }
    for (const auto& source : request->source_objects()) {
      GcsObject object;
      object.name = source.name();
      object.generation = source.generation();
      plain.sources.push_back(std::move(object));
    }
    plain.crc32c = request->object_checksums().crc32c();
    const absl::StatusOr<GcsObject> object =
        fake_.ComposeObject(CallOf(*context, GcsRpc::kComposeObject, bucket), plain);
    if (object.ok()) ToMessage(*object, bucket, *response);
    return ToGrpcStatus(object.status());
  }

  grpc::Status DeleteObject(grpc::ServerContext* context, const v2::DeleteObjectRequest* request,
                            google::protobuf::Empty*) override {
    return ToGrpcStatus(
        fake_.DeleteObject(CallOf(*context, GcsRpc::kDeleteObject, request->bucket()),
                           request->object(), request->generation()));
  }

  grpc::Status ListObjects(grpc::ServerContext* context, const v2::ListObjectsRequest* request,
                           v2::ListObjectsResponse* response) override {
    const absl::StatusOr<GcsListPage> page =
        fake_.ListObjects(CallOf(*context, GcsRpc::kListObjects, request->parent()),
                          {request->prefix(), request->page_size(), request->page_token()});
    if (!page.ok()) return ToGrpcStatus(page.status());
    for (const GcsObject& object : page->objects) {
      ToMessage(object, request->parent(), *response->add_objects());
    }
    response->set_next_page_token(page->next_page_token);
    return grpc::Status::OK;
  }

 private:
  FakeGcs& fake_;
};

}  // namespace

struct FakeGcsServer::Running {
  explicit Running(FakeGcs& fake) : service(fake) {}
  Service service;
  std::unique_ptr<grpc::Server> server;
};

FakeGcsServer::FakeGcsServer(FakeGcs& fake) {
  // gRPC 1.51 shuts down with its last object, and then may wait 10 s for its own threads: not
  // between tests.
  static const bool kept = [] {
    grpc_init();
    return true;
  }();
  static_cast<void>(kept);
  running_ = std::make_unique<Running>(fake);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&running_->service);
  running_->server = builder.BuildAndStart();
  if (running_->server == nullptr || port == 0) {
    std::fputs("FakeGcsServer: cannot listen on loopback\n", stderr);
    std::abort();
  }
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeGcsServer::~FakeGcsServer() { running_->server->Shutdown(std::chrono::system_clock::now()); }

}  // namespace peerchunk::test
