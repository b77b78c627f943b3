#pragma once

#include <string>

#include "peerchunk/base/file.h"

namespace peerchunk::test {

// An address on loopback at which every connection is refused, and at which nobody else comes to
// listen while this lives: a socket that is bound and does not listen.
class HeldPort {
 public:
  HeldPort();

  const std::string& address() const { return address_; }

 private:
  File socket_;
  std::string address_;
};

}  // namespace peerchunk::test
