#include "tests/support/gcs/fake_gcs_stub.h"

#include <atomic>
#include <utility>

#include <absl/strings/str_cat.h>

namespace peerchunk::test {
namespace {

class ReadStream final : public GcsReadStream {
 public:
  explicit ReadStream(std::unique_ptr<FakeGcs::Reading> reading) : reading_(std::move(reading)) {}
  bool Read(GcsReadMessage& message) override { return reading_->Next(message); }
  absl::Status Finish() override { return reading_->status(); }

 private:
  const std::unique_ptr<FakeGcs::Reading> reading_;
};

class WriteStream final : public GcsWriteStream {
 public:
  explicit WriteStream(std::unique_ptr<FakeGcs::Writing> writing) : writing_(std::move(writing)) {}
  bool Write(const GcsWriteMessage& message) override {
    if (status_.ok()) status_ = writing_->Receive(message);
    return status_.ok();
  }
  absl::StatusOr<GcsWriteStatus> Finish() override {
    if (!status_.ok()) return status_;
    return writing_->HalfClose();
  }

 private:
  const std::unique_ptr<FakeGcs::Writing> writing_;
  absl::Status status_;
};

class Call final : public GcsCall, public std::enable_shared_from_this<Call> {
 public:
  Call(FakeGcs& fake, const std::string& bucket, const std::string& connection, std::string token)
      : fake_(fake), bucket_(bucket), connection_(connection), token_(std::move(token)) {}

  void Cancel() override { cancelled_.store(true); }

  absl::StatusOr<GcsObject> GetObject(const std::string& object) override {
    return fake_.GetObject(Info(GcsRpc::kGetObject), object);
  }
  std::unique_ptr<GcsReadStream> ReadObject(const GcsReadRequest& request) override {
    return std::make_unique<ReadStream>(fake_.ReadObject(Info(GcsRpc::kReadObject), request));
  }
  absl::StatusOr<std::string> StartResumableWrite(const GcsWriteSpec& spec) override {
    return fake_.StartResumableWrite(Info(GcsRpc::kStartResumableWrite), spec);
  }
  absl::StatusOr<GcsWriteStatus> QueryWriteStatus(const std::string& upload_id) override {
    return fake_.QueryWriteStatus(Info(GcsRpc::kQueryWriteStatus), upload_id);
  }
  absl::Status CancelResumableWrite(const std::string& upload_id) override {
    return fake_.CancelResumableWrite(Info(GcsRpc::kCancelResumableWrite), upload_id);
  }
  std::unique_ptr<GcsWriteStream> WriteObject() override {
    return std::make_unique<WriteStream>(fake_.WriteObject(Info(GcsRpc::kWriteObject)));
  }
  absl::StatusOr<GcsObject> ComposeObject(const GcsComposeRequest& request) override {
    return fake_.ComposeObject(Info(GcsRpc::kComposeObject), request);
  }
  absl::Status DeleteObject(const std::string& object, int64_t generation) override {
    return fake_.DeleteObject(Info(GcsRpc::kDeleteObject), object, generation);
  }
  absl::StatusOr<GcsListPage> ListObjects(const GcsListRequest& request) override {
    return fake_.ListObjects(Info(GcsRpc::kListObjects), request);
  }

 private:
  FakeCall Info(GcsRpc rpc) {
    FakeCall call;
    call.rpc = rpc;
    call.bucket = absl::StrCat("projects/_/buckets/", bucket_);
    call.routing = absl::StrCat("bucket=projects%2F_%2Fbuckets%2F", bucket_);
    call.token = token_;
    call.connection = connection_;
    call.cancelled = [self = shared_from_this()] { return self->cancelled_.load(); };
    return call;
  }

  FakeGcs& fake_;
  const std::string& bucket_;
  const std::string& connection_;
  const std::string token_;
  std::atomic<bool> cancelled_{false};
};

class FakeGcsStub final : public GcsStub {
 public:
  FakeGcsStub(FakeGcs& fake, std::string bucket, std::string connection)
      : fake_(fake), bucket_(std::move(bucket)), connection_(std::move(connection)) {}
  std::shared_ptr<GcsCall> NewCall(const GcsCallOptions& options) override {
    return std::make_shared<Call>(fake_, bucket_, connection_, options.idempotency_token);
  }

 private:
  FakeGcs& fake_;
  const std::string bucket_;
  const std::string connection_;
};

}  // namespace

std::unique_ptr<GcsStub> MakeFakeGcsStub(FakeGcs& fake, std::string bucket,
                                         std::string connection) {
  return std::make_unique<FakeGcsStub>(fake, std::move(bucket), std::move(connection));
}

}  // namespace peerchunk::test
