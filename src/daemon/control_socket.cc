#include "daemon/control_socket.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// Whether a process accepts connections there.
bool SomeoneAnswers(const std::string& path) {
  const File socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
         errno == EACCES;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlSocket>> ControlSocket::Claim(const ControlAddress& address) {
  const std::string& path = address.path();
  struct stat found {};
  if (lstat(path.c_str(), &found) == 0) {
    if (!S_ISSOCK(found.st_mode)) {
      return absl::AlreadyExistsError(
          absl::StrCat("control socket ", path,
                       ": a file that is no socket is in its place; move it "
                       "away, or give another path with --control"));
    }
    if (SomeoneAnswers(path)) {
      return absl::AlreadyExistsError(
          absl::StrCat("control socket ", path,
                       ": another daemon answers there. Stop it, or give this one its own "
                       "--data-folder and --control"));
    }
    if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, "remove the old socket " + path);
  }
  // As long as "control.sock" at most, so that a path that fits under its own name fits here.
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  std::string temporary = folder + ".c" + BuildId::Random().ToString().substr(0, 8);
  if (temporary.size() >= sizeof(sockaddr_un::sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("control socket ", path, ": the path is too long; give a shorter --control"));
  }
  return std::unique_ptr<ControlSocket>(new ControlSocket(path, std::move(temporary)));
}

ControlSocket::~ControlSocket() { unlink(published_ ? path_.c_str() : temporary_.c_str()); }

absl::Status ControlSocket::Publish() {
  if (chmod(temporary_.c_str(), 0600) != 0) return ErrnoStatus(errno, "restrict " + temporary_);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    return ErrnoStatus(errno, "rename the control socket to " + path_);
  }
  published_ = true;
  return absl::OkStatus();
}

}  // namespace peerchunk
