#pragma once

#include <map>
#include <string>

#include "peerchunk/base/file.h"

namespace peerchunk::test {

struct HttpAnswer {
  int status = 0;                              // 0: nobody listens there.
  std::map<std::string, std::string> headers;  // Names in lower case.
  std::string body;
};

// A TCP connection to `address`, "127.0.0.1:port" or "[::1]:port"; not open when nobody listens.
File TcpConnect(const std::string& address);

// GET `path` from a server at `address`, on a connection of its own, read to its end.
HttpAnswer HttpGet(const std::string& address, const std::string& path);

}  // namespace peerchunk::test
