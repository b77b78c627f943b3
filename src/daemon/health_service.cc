#include "daemon/health_service.h"

#include <utility>

#include "base/logging.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// One call of Check: waiting to be asked, then answering.
struct CheckCall {
  CheckCall() : answer(&context) {}

  grpc::ServerContext context;
  HealthCheckRequest request;
  grpc::ServerAsyncResponseWriter<HealthCheckResponse> answer;
  bool answered = false;
};

}  // namespace

HealthService::~HealthService() { Shutdown(); }

void HealthService::RegisterWith(grpc::ServerBuilder& builder) {
  builder.RegisterService(&service_);
  queue_ = builder.AddCompletionQueue(/*is_frequently_polled=*/false);
}

void HealthService::Start() {
  WaitForNext();
  reader_ = std::jthread([this](const std::stop_token& stop) { Read(stop); });
  answerer_ = std::thread([this] { Answer(); });
}

void HealthService::Shutdown() {
  if (queue_ == nullptr) return;
  reader_.request_stop();
  {
    const MutexLock lock(mutex_);
    over_ = true;
  }
  queue_->Shutdown();
  if (answerer_.joinable()) {
    answerer_.join();
  } else {  // Never started: what waits in the queue has to be taken out all the same.
    Answer();
  }
  if (reader_.joinable()) reader_.join();
  queue_ = nullptr;
}

absl::Status HealthService::Current() const {
  const MutexLock lock(mutex_);
  PEERCHUNK_RETURN_IF_ERROR(latest_);
  const absl::Duration age = options_.clock->Now() - finished_;
  if (age <= options_.stale_after) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("no read has ended for ", absl::FormatDuration(age)));
}

void HealthService::Read(const std::stop_token& stop) {
  do {
    const absl::Status read = options_.read_bytes();
    bool changed = false;
    {
      const MutexLock lock(mutex_);
      changed = read.ok() != latest_.ok();
      latest_ = read;
      finished_ = options_.clock->Now();
    }
    if (changed && read.ok()) Logger("daemon").info("event=healthy");
    if (changed && !read.ok())
      Logger("daemon").error("event=unhealthy cause=\"{}\"", read.ToString());
  } while (options_.clock->SleepUntil(options_.clock->Now() + options_.every, stop));
}

void HealthService::WaitForNext() {
  // gRPC aborts on a request for a queue that was shut down, so the two exclude each other.
  const MutexLock lock(mutex_);
  if (over_) return;
  auto* const call = new CheckCall;
  service_.RequestCheck(&call->context, &call->request, &call->answer, queue_.get(), queue_.get(),
                        call);
}

void HealthService::Answer() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
    std::unique_ptr<CheckCall> call(static_cast<CheckCall*>(tag));
    if (!ok || call->answered) continue;
    WaitForNext();
    const std::string& service = call->request.service();
    call->answered = true;
    CheckCall* const answering = call.release();  // Comes back from the queue once it is sent.
    if (!service.empty() && service != "peerchunk.v1.ChunkService") {
      answering->answer.FinishWithError(
          grpc::Status(grpc::StatusCode::NOT_FOUND, "no such service is served here"), answering);
      continue;
    }
    HealthCheckResponse response;
    response.set_status(Current().ok() ? HealthCheckResponse::SERVING
                                       : HealthCheckResponse::NOT_SERVING);
    answering->answer.Finish(response, grpc::Status::OK, answering);
  }
}

}  // namespace peerchunk
