#include "cli/control_client.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include <grpcpp/create_channel.h>

#include "node/socket_address.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"

namespace peerchunk::cli {
namespace {

// gRPC says of every failed connection the same; the system says why.
absl::Status CheckSocket(const std::string& path) {
  const File socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  if (connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    return absl::OkStatus();
  }
  if (errno == EACCES || errno == EPERM) {
    return absl::PermissionDeniedError(
        absl::StrCat("the control socket ", path,
                     " is not for this user: run as the user that runs peerchunkd"));
  }
  return absl::UnavailableError(
      absl::StrCat("no daemon answers at ", path, " (", std::strerror(errno),
                   "): start peerchunkd, or say where it is with --control"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlClient>> ControlClient::Connect(const std::string& address,
                                                                      std::stop_token interrupted) {
  PEERCHUNK_ASSIGN_OR_RETURN(const ControlAddress control, ControlAddress::Parse(address));
  if (control.is_unix()) PEERCHUNK_RETURN_IF_ERROR(CheckSocket(control.path()));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // The list of a large node's builds is one message.
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(control.target(), grpc::InsecureChannelCredentials(), arguments);
  return std::unique_ptr<ControlClient>(
      new ControlClient(v1::SandboxService::NewStub(channel), std::move(interrupted)));
}

}  // namespace peerchunk::cli
