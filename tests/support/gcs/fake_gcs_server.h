#pragma once

#include <memory>
#include <string>

#include "tests/support/gcs/fake_gcs.h"

namespace peerchunk::test {

// google.storage.v2.Storage on a loopback port of its own, in front of a FakeGcs. Owned by a test.
class FakeGcsServer {
 public:
  explicit FakeGcsServer(FakeGcs& fake);  // Borrowed.
  ~FakeGcsServer();                       // Ends what is under way.
  FakeGcsServer(const FakeGcsServer&) = delete;
  FakeGcsServer& operator=(const FakeGcsServer&) = delete;

  const std::string& address() const { return address_; }

 private:
  struct Running;
  std::unique_ptr<Running> running_;
  std::string address_;
};

}  // namespace peerchunk::test
