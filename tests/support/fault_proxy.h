#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <absl/time/time.h>

namespace peerchunk::test {

// A TCP relay on a loopback port of its own, between a reader and a source, that does to the bytes
// what a bad network does. Little is under way inside it or in the kernel's buffers around it, so a
// source that ends at some byte ends near that byte for the reader too. Thread-safe; all
// connections end with it.
class FaultProxy {
 public:
  struct Options {
    // Of every byte, in each direction.
    absl::Duration delay = absl::ZeroDuration();
    // A share of the segments towards the reader comes so much later, and all behind it too: what a
    // lost segment costs when only the sender's timer notices.
    double late_share = 0;
    absl::Duration late_by = absl::ZeroDuration();
    uint64_t bytes_per_second = 0;  // Towards the reader; 0: no limit.
    uint32_t seed = 1;
  };
  explicit FaultProxy(std::string target) : FaultProxy(std::move(target), Options()) {}
  FaultProxy(std::string target, const Options& options);  // "127.0.0.1:port".
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  const std::string& address() const { return address_; }
  // Towards the reader, over all connections so far.
  uint64_t bytes_forwarded() const;
  uint64_t connections() const;

  // Lets `bytes` more through to the reader, then nothing until Release().
  void HoldAfter(uint64_t bytes);
  // Returns once they are through and more would follow; false when Release() came first.
  bool AwaitHeld();
  void Release();
  // Resets every connection there is; new ones are taken.
  void Cut();

 private:
  class Relay;
  std::unique_ptr<Relay> relay_;
  std::string address_;
};

}  // namespace peerchunk::test
