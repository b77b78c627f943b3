#pragma once

#include <string>
#include <vector>

#include "peerchunk/base/file.h"

namespace peerchunk::test {

// An address on loopback that answers no connection attempt, neither yes nor no: a listener whose
// queue of connections is full. Needs no privileges.
class BlackHole {
 public:
  BlackHole();

  const std::string& address() const { return address_; }

 private:
  File listener_;
  std::vector<File> waiting_;
  std::string address_;
};

}  // namespace peerchunk::test
