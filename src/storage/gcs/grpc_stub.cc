#include "storage/gcs/grpc_stub.h"

#include <chrono>
#include <utility>

#include <absl/strings/str_cat.h>
#include <grpcpp/grpcpp.h>

#include "base/grpc_status.h"
#include "storage/gcs/messages.h"

namespace peerchunk {
namespace {

using Stub = gcs_v2::Storage::StubInterface;

class ReadStream final : public GcsReadStream {
 public:
  ReadStream(grpc::ClientContext& context, Stub& stub, const gcs_v2::ReadObjectRequest& request)
      : context_(context), reader_(stub.ReadObject(&context, request)) {}

  ~ReadStream() override {
    if (finished_) return;
    context_.TryCancel();  // Finish() would wait for ever for messages that nobody reads.
    reader_->Finish();
  }

  bool Read(GcsReadMessage& message) override {
    if (!reader_->Read(&response_)) return false;
    message = GcsReadMessage();
    if (response_.has_checksummed_data()) {
      message.content = response_.checksummed_data().content();
      if (response_.checksummed_data().has_crc32c()) {
        message.content_crc32c = response_.checksummed_data().crc32c();
      }
    }
    if (response_.object_checksums().has_crc32c()) {
      message.object_crc32c = response_.object_checksums().crc32c();
    }
    if (response_.has_content_range()) {
      message.content_start = static_cast<uint64_t>(response_.content_range().start());
      message.complete_length = static_cast<uint64_t>(response_.content_range().complete_length());
    }
    if (response_.has_metadata()) message.metadata = FromMessage(response_.metadata());
    return true;
  }

  absl::Status Finish() override {
    finished_ = true;
    return ToAbslStatus(reader_->Finish());
  }

 private:
  grpc::ClientContext& context_;
  const std::unique_ptr<grpc::ClientReaderInterface<gcs_v2::ReadObjectResponse>> reader_;
  gcs_v2::ReadObjectResponse response_;
  bool finished_ = false;
};

class WriteStream final : public GcsWriteStream {
 public:
  WriteStream(grpc::ClientContext& context, Stub& stub, const std::string& bucket)
      : context_(context), bucket_(bucket), writer_(stub.WriteObject(&context, &response_)) {}

  ~WriteStream() override {
    if (finished_) return;
    context_.TryCancel();
    writer_->Finish();
  }

  bool Write(const GcsWriteMessage& message) override {
    gcs_v2::WriteObjectRequest request;
    if (message.upload_id != nullptr) request.set_upload_id(*message.upload_id);
    if (message.spec != nullptr)
      *request.mutable_write_object_spec() = ToMessage(*message.spec, bucket_);
    request.set_write_offset(static_cast<int64_t>(message.offset));
    // Lent to the message, so that a lane's buffer is copied only by gRPC itself.
    std::string& content = *request.mutable_checksummed_data()->mutable_content();
    content.swap(*message.content);
    request.mutable_checksummed_data()->set_crc32c(message.content_crc32c);
    if (message.object_crc32c)
      request.mutable_object_checksums()->set_crc32c(*message.object_crc32c);
    request.set_finish_write(message.finish);
    const bool written = writer_->Write(request);
    content.swap(*message.content);
    return written;
  }

  absl::StatusOr<GcsWriteStatus> Finish() override {
    finished_ = true;
    writer_->WritesDone();
    const absl::Status status = ToAbslStatus(writer_->Finish());
    if (!status.ok()) return status;
    return StatusFromMessage(response_);
  }

 private:
  grpc::ClientContext& context_;
  const std::string& bucket_;
  gcs_v2::WriteObjectResponse response_;
  const std::unique_ptr<grpc::ClientWriterInterface<gcs_v2::WriteObjectRequest>> writer_;
  bool finished_ = false;
};

class Call final : public GcsCall {
 public:
  Call(Stub& stub, const std::string& bucket) : stub_(stub), bucket_(bucket) {}

  grpc::ClientContext& context() { return context_; }

  void Cancel() override { context_.TryCancel(); }

  absl::StatusOr<GcsObject> GetObject(const std::string& object) override {
    gcs_v2::GetObjectRequest request;
    request.set_bucket(BucketResource(bucket_));
    request.set_object(object);
    gcs_v2::Object response;
    const absl::Status status = ToAbslStatus(stub_.GetObject(&context_, request, &response));
    if (!status.ok()) return status;
    return FromMessage(response);
  }

  std::unique_ptr<GcsReadStream> ReadObject(const GcsReadRequest& request) override {
    gcs_v2::ReadObjectRequest message;
    message.set_bucket(BucketResource(bucket_));
    message.set_object(request.object);
    message.set_generation(request.generation);
    message.set_read_offset(static_cast<int64_t>(request.offset));
    message.set_read_limit(static_cast<int64_t>(request.limit));
    return std::make_unique<ReadStream>(context_, stub_, message);
  }

  absl::StatusOr<std::string> StartResumableWrite(const GcsWriteSpec& spec) override {
    gcs_v2::StartResumableWriteRequest request;
    *request.mutable_write_object_spec() = ToMessage(spec, bucket_);
    gcs_v2::StartResumableWriteResponse response;
    const absl::Status status =
        ToAbslStatus(stub_.StartResumableWrite(&context_, request, &response));
    if (!status.ok()) return status;
    return response.upload_id();
  }

  absl::StatusOr<GcsWriteStatus> QueryWriteStatus(const std::string& upload_id) override {
    gcs_v2::QueryWriteStatusRequest request;
    request.set_upload_id(upload_id);
    gcs_v2::QueryWriteStatusResponse response;
    const absl::Status status = ToAbslStatus(stub_.QueryWriteStatus(&context_, request, &response));
    if (!status.ok()) return status;
    return StatusFromMessage(response);
  }

  absl::Status CancelResumableWrite(const std::string& upload_id) override {
    gcs_v2::CancelResumableWriteRequest request;
    request.set_upload_id(upload_id);
    gcs_v2::CancelResumableWriteResponse response;
    return ToAbslStatus(stub_.CancelResumableWrite(&context_, request, &response));
  }

  std::unique_ptr<GcsWriteStream> WriteObject() override {
    return std::make_unique<WriteStream>(context_, stub_, bucket_);
  }

  absl::StatusOr<GcsObject> ComposeObject(const GcsComposeRequest& request) override {
    gcs_v2::ComposeObjectRequest message;
    *message.mutable_destination() =
        std::move(*ToMessage(request.destination, bucket_).mutable_resource());
    for (const GcsObject& source : request.sources) {
      gcs_v2::ComposeObjectRequest::SourceObject& to = *message.add_source_objects();
      to.set_name(source.name);
      to.set_generation(source.generation);
    }
    if (request.destination.if_generation) {
      message.set_if_generation_match(*request.destination.if_generation);
    }
    message.mutable_object_checksums()->set_crc32c(request.crc32c);
    gcs_v2::Object response;
    const absl::Status status = ToAbslStatus(stub_.ComposeObject(&context_, message, &response));
    if (!status.ok()) return status;
    return FromMessage(response);
  }

  absl::Status DeleteObject(const std::string& object, int64_t generation) override {
    gcs_v2::DeleteObjectRequest request;
    request.set_bucket(BucketResource(bucket_));
    request.set_object(object);
    request.set_generation(generation);
    google::protobuf::Empty response;
    return ToAbslStatus(stub_.DeleteObject(&context_, request, &response));
  }

  absl::StatusOr<GcsListPage> ListObjects(const GcsListRequest& request) override {
    gcs_v2::ListObjectsRequest message;
    message.set_parent(BucketResource(bucket_));
    message.set_prefix(request.prefix);
    message.set_page_size(request.page_size);
    message.set_page_token(request.page_token);
    gcs_v2::ListObjectsResponse response;
    const absl::Status status = ToAbslStatus(stub_.ListObjects(&context_, message, &response));
    if (!status.ok()) return status;
    GcsListPage page;
    for (const gcs_v2::Object& object : response.objects())
      page.objects.push_back(FromMessage(object));
    page.next_page_token = response.next_page_token();
    return page;
  }

 private:
  Stub& stub_;
  const std::string& bucket_;
  grpc::ClientContext context_;
};

}  // namespace

GrpcGcsStub::GrpcGcsStub(std::unique_ptr<Stub> stub, std::string bucket, Clock& clock)
    : stub_(std::move(stub)), bucket_(std::move(bucket)), clock_(clock) {}

std::shared_ptr<GcsCall> GrpcGcsStub::NewCall(const GcsCallOptions& options) {
  auto call = std::make_shared<Call>(*stub_, bucket_);
  call->context().AddMetadata("x-goog-request-params",
                              absl::StrCat("bucket=projects%2F_%2Fbuckets%2F", bucket_));
  call->context().AddMetadata("x-goog-gcs-idempotency-token", options.idempotency_token);
  if (options.deadline != absl::InfiniteFuture()) {
    call->context().set_deadline(std::chrono::system_clock::now() +
                                 absl::ToChronoNanoseconds(options.deadline - clock_.Now()));
  }
  return call;
}

}  // namespace peerchunk
