// nginx serving the sample as a static file, curl reading it into /dev/null.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "bench/contender.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

// A free port, given back for nginx to take: it cannot tell which one it would be given itself.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  int port = 0;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    port = ntohs(address.sin_port);
  }
  close(fd);
  return port;
}

bool Answers(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool there = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return there;
}

class Nginx final : public Contender {
 public:
  Nginx(std::unique_ptr<ServerProcess> server) : server_(std::move(server)) {}
  std::string name() const override { return "nginx + curl to /dev/null"; }
  absl::Status ReadAll() override {
    const std::string command =
        "curl -sf -o /dev/null http://127.0.0.1:" + std::to_string(server_->port()) + "/memfile";
    const int end = std::system(command.c_str());
    if (end != 0) return absl::InternalError("curl failed: " + command);
    return absl::OkStatus();
  }

 private:
  const std::unique_ptr<ServerProcess> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Contender>> StartNginx(const Sample& sample) {
  if (access("/usr/sbin/nginx", X_OK) != 0 || access("/usr/bin/curl", X_OK) != 0) {
    return absl::UnavailableError("nginx-light and curl are not installed");
  }
  const int port = FreePort();
  const std::string config = sample.folder + "/nginx.conf";
  std::ofstream(config) << "daemon off; master_process off; pid " << sample.folder
                        << "/nginx.pid; error_log stderr crit;\nevents {}\nhttp { access_log off; "
                        << "sendfile on; tcp_nopush on; server { listen 127.0.0.1:" << port
                        << "; root " << sample.folder << "; } }\n";
  PEERCHUNK_ASSIGN_OR_RETURN(auto server, ServerProcess::Start([&](const auto& ready) {
                               ready(port);
                               execl("/usr/sbin/nginx", "nginx", "-c", config.c_str(), nullptr);
                             }));
  for (int i = 0; i < 200 && !Answers(port); ++i) usleep(20'000);
  if (!Answers(port)) return absl::UnavailableError("nginx did not come up");
  return std::make_unique<Nginx>(std::move(server));
}

}  // namespace peerchunk::bench
