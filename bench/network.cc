#include "bench/network.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

absl::Status BringLoopbackUp() {
  const File any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq loopback{};
  std::strcpy(loopback.ifr_name, "lo");
  if (ioctl(any.fd(), SIOCGIFFLAGS, &loopback) != 0) return ErrnoStatus(errno, "find lo");
  loopback.ifr_flags |= IFF_UP;
  if (ioctl(any.fd(), SIOCSIFFLAGS, &loopback) != 0) return ErrnoStatus(errno, "bring lo up");
  return absl::OkStatus();
}

// Opened anew for each use: it is the setting of whoever opens it.
constexpr char kSetting[] = "/proc/sys/net/ipv4/tcp_congestion_control";

absl::StatusOr<std::string> CongestionControl() {
  PEERCHUNK_ASSIGN_OR_RETURN(const File setting, File::Open(kSetting, O_RDONLY));
  char name[64];
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t size, setting.ReadAt(0, absl::MakeSpan(name)));
  return std::string(name, size > 0 ? size - 1 : 0);  // Without the newline.
}

absl::Status SetCongestionControl(const std::string& name) {
  PEERCHUNK_ASSIGN_OR_RETURN(const File setting, File::Open(kSetting, O_WRONLY));
  return setting.WriteAt(0, name);
}

}  // namespace

absl::StatusOr<Network> EnterOwnNetwork(const std::string& congestion_control) {
  Network network;
  if (unshare(CLONE_NEWNET) != 0) {
    network.note = absl::StrCat("not permitted to make a network namespace (", std::strerror(errno),
                                "): this is the host's network; run as root for one of its own");
  } else {
    network.own = true;
    PEERCHUNK_RETURN_IF_ERROR(BringLoopbackUp());
    if (const absl::Status set = SetCongestionControl(congestion_control); !set.ok()) {
      network.note = absl::StrCat("'", congestion_control, "' was refused: ", set.message());
    }
  }
  PEERCHUNK_ASSIGN_OR_RETURN(network.congestion_control, CongestionControl());
  return network;
}

}  // namespace peerchunk::bench
