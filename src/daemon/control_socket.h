#pragma once

#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "node/socket_address.h"

namespace peerchunk {

// The place of a unix socket that only this user may connect to. gRPC makes the socket with the
// umask's mode, so it is made under a name of its own, restricted, and then renamed. The destructor
// removes it.
class ControlSocket {
 public:
  // AlreadyExists: someone answers there, or it is not a socket. What a dead daemon left is
  // removed.
  static absl::StatusOr<std::unique_ptr<ControlSocket>> Claim(const ControlAddress& address);
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  // Where the server is to listen.
  std::string listen_target() const { return "unix:" + temporary_; }
  // Once it listens: restricts the socket and gives it its name.
  absl::Status Publish();

 private:
  ControlSocket(std::string path, std::string temporary)
      : path_(std::move(path)), temporary_(std::move(temporary)) {}

  const std::string path_;
  const std::string temporary_;
  bool published_ = false;
};

}  // namespace peerchunk
