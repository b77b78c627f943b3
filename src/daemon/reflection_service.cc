#include "daemon/reflection_service.h"

#include <set>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

namespace peerchunk {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

// `file` and everything it imports, each once.
void AddFile(const FileDescriptor* file, std::set<const FileDescriptor*>& added,
             ServerReflectionResponse& response) {
  if (!added.insert(file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  response.mutable_file_descriptor_response()->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file->dependency_count(); ++i) {
    AddFile(file->dependency(i), added, response);
  }
}

void SetError(grpc::StatusCode code, const std::string& message,
              ServerReflectionResponse& response) {
  response.mutable_error_response()->set_error_code(code);
  response.mutable_error_response()->set_error_message(message);
}

void SetFile(const FileDescriptor* file, const std::string& asked,
             ServerReflectionResponse& response) {
  if (file == nullptr) {
    SetError(grpc::StatusCode::NOT_FOUND, "not known here: " + asked, response);
    return;
  }
  std::set<const FileDescriptor*> added;
  AddFile(file, added, response);
}

}  // namespace

grpc::Status ReflectionService::ServerReflectionInfo(
    grpc::ServerContext*,
    grpc::ServerReaderWriter<ServerReflectionResponse, ServerReflectionRequest>* stream) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  ServerReflectionRequest request;
  while (stream->Read(&request)) {
    ServerReflectionResponse response;
    response.set_valid_host(request.host());
    *response.mutable_original_request() = request;
    switch (request.message_request_case()) {
      case ServerReflectionRequest::kListServices:
        for (const std::string& service : services_) {
          response.mutable_list_services_response()->add_service()->set_name(service);
        }
        break;
      case ServerReflectionRequest::kFileByFilename:
        SetFile(pool.FindFileByName(request.file_by_filename()), request.file_by_filename(),
                response);
        break;
      case ServerReflectionRequest::kFileContainingSymbol:
        SetFile(pool.FindFileContainingSymbol(request.file_containing_symbol()),
                request.file_containing_symbol(), response);
        break;
      default:
        SetError(grpc::StatusCode::UNIMPLEMENTED, "extensions are not used here", response);
    }
    if (!stream->Write(response)) break;
  }
  return grpc::Status::OK;
}

}  // namespace peerchunk
