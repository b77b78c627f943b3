#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "peerchunk/base/status.h"
#include "service/call.h"
#include "service/wire.h"

namespace peerchunk {
namespace {

// One GetBuildFileInfo. Owned by its operations and its task; gone with the last of them.
class InfoCall final : public std::enable_shared_from_this<InfoCall> {
 public:
  InfoCall(ServiceContext& context, grpc::ServerCompletionQueue* queue)
      : context_(context), queue_(queue), responder_(&grpc_) {
    context_.CallBegins();
  }
  ~InfoCall() { context_.CallEnds(); }

  void Await() {
    context_.service.RequestGetBuildFileInfo(&grpc_, &request_, &responder_, queue_, queue_,
                                             Operation(&InfoCall::OnRequest));
  }

 private:
  void* Operation(void (InfoCall::*then)(bool)) {
    return static_cast<CallOperation*>(new MemberOperation<InfoCall>(shared_from_this(), then));
  }

  void OnRequest(bool ok) {
    if (!ok) return;
    AwaitInfoCall(context_, queue_);
    const std::string peer = PeerHost(grpc_.peer());
    auto admission = context_.active.Admit(peer);
    if (!admission.ok()) {
      responder_.FinishWithError(FinalStatus(context_, admission.status(), grpc_),
                                 Operation(&InfoCall::OnFinished));
      return;
    }
    auto shared = std::make_shared<ActiveCalls::Admission>(*std::move(admission));
    context_.readers.Run(peer, Priority::kDemand,
                         [self = shared_from_this(), shared] { self->Answer(); });
  }

  void Answer() {
    const auto resolved = Resolve();
    if (!resolved.ok()) {
      responder_.FinishWithError(FinalStatus(context_, resolved.status(), grpc_),
                                 Operation(&InfoCall::OnFinished));
      return;
    }
    v1::FileHead head;
    HeadToWire(resolved->head, &head);
    responder_.Finish(head, grpc::Status::OK, Operation(&InfoCall::OnFinished));
  }

  absl::StatusOr<ServedFile> Resolve() const {
    PEERCHUNK_ASSIGN_OR_RETURN(const BuildFileId file,
                               FileFromWire(request_.build_id(), request_.file()));
    return context_.templates->Resolve(file, request_.even_if_durable(), false);
  }

  void OnFinished(bool) {}

  ServiceContext& context_;
  grpc::ServerCompletionQueue* const queue_;
  grpc::ServerContext grpc_;
  v1::GetBuildFileInfoRequest request_;
  grpc::ServerAsyncResponseWriter<v1::FileHead> responder_;
};

}  // namespace

void AwaitInfoCall(ServiceContext& context, grpc::ServerCompletionQueue* queue) {
  if (context.stopping.load()) return;
  std::make_shared<InfoCall>(context, queue)->Await();
}

}  // namespace peerchunk
