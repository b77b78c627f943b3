#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

namespace peerchunk {

// A numeric address and port to listen on.
class ListenAddress {
 public:
  // "127.0.0.1:7070", "[::1]:7070", "0.0.0.0:0". InvalidArgument for a name or anything else.
  static absl::StatusOr<ListenAddress> Parse(std::string_view text);

  std::string ToString() const { return WithPort(port_); }
  std::string WithPort(uint16_t port) const;
  uint16_t port() const { return port_; }
  bool is_loopback() const;

  // Whether this process could listen here now: the system's own reason when it could not (in use,
  // no such address here, not allowed), which gRPC does not pass on.
  absl::Status CheckFree() const;

 private:
  ListenAddress(std::string host, bool v6, uint16_t port)
      : host_(std::move(host)), v6_(v6), port_(port) {}

  std::string host_;  // Canonical, without brackets.
  bool v6_;
  uint16_t port_;
};

// Where SandboxService is served: a unix socket, or a loopback address, and nothing else.
class ControlAddress {
 public:
  // An absolute path (also as "unix:/path"), or a loopback IP:PORT. InvalidArgument says why not.
  static absl::StatusOr<ControlAddress> Parse(std::string_view text);

  bool is_unix() const { return !path_.empty(); }
  const std::string& path() const { return path_; }  // Of a unix socket.
  const std::string& ToString() const { return text_; }
  // For gRPC to dial or to listen on.
  std::string target() const;

 private:
  ControlAddress(std::string text, std::string path)
      : text_(std::move(text)), path_(std::move(path)) {}

  std::string text_;
  std::string path_;
};

}  // namespace peerchunk
