#include "tests/support/http_get.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sstream>

#include <absl/strings/ascii.h>
#include <gtest/gtest.h>

namespace peerchunk::test {

File TcpConnect(const std::string& address) {
  const size_t colon = address.rfind(':');
  const auto port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  const bool v6 = address.starts_with('[');
  sockaddr_in in{.sin_family = AF_INET, .sin_port = port, .sin_addr = {}, .sin_zero = {}};
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = port;
  if (v6) {
    EXPECT_EQ(inet_pton(AF_INET6, address.substr(1, colon - 2).c_str(), &in6.sin6_addr), 1);
  } else {
    EXPECT_EQ(inet_pton(AF_INET, address.substr(0, colon).c_str(), &in.sin_addr), 1);
  }
  File socket(::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int connected =
      v6 ? connect(socket.fd(), reinterpret_cast<const sockaddr*>(&in6), sizeof(in6))
         : connect(socket.fd(), reinterpret_cast<const sockaddr*>(&in), sizeof(in));
  if (connected != 0) return File();
  return socket;
}

HttpAnswer HttpGet(const std::string& address, const std::string& path) {
  HttpAnswer answer;
  const File socket = TcpConnect(address);
  if (!socket.is_open()) return answer;
  const std::string request =
      "GET " + path + " HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(send(socket.fd(), request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  std::string bytes;
  char piece[64 * 1024];
  ssize_t got = 0;
  while ((got = recv(socket.fd(), piece, sizeof(piece), 0)) > 0) {
    bytes.append(piece, static_cast<size_t>(got));
  }
  EXPECT_EQ(got, 0) << "the connection broke";
  const size_t end = bytes.find("\r\n\r\n");
  if (end == std::string::npos) {
    ADD_FAILURE() << "no answer in '" << bytes << "'";
    return answer;
  }
  answer.body = bytes.substr(end + 4);
  std::istringstream head(bytes.substr(0, end));
  std::string version;
  head >> version >> answer.status;
  std::string line;
  std::getline(head, line);
  while (std::getline(head, line)) {
    const size_t colon = line.find(':');
    answer.headers[absl::AsciiStrToLower(line.substr(0, colon))] =
        std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return answer;
}

}  // namespace peerchunk::test
