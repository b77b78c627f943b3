#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/child_process.h"

namespace peerchunk::test {

// Two hosts on one machine: this process in a network namespace of its own, and another namespace
// behind a virtual cable. Nothing of the machine's own network is touched, and nothing is left when
// the process ends. Needs the right to make namespaces, and ip, tc, nsenter and unshare.
class TwoHosts {
 public:
  static constexpr char kReader[] = "10.91.0.1";
  static constexpr char kSource[] = "10.91.0.2";
  // Packets to this address get lost behind the source.
  static constexpr char kBlackHole[] = "10.92.0.1";

  // Moves the calling thread, and the threads that it makes from now on, into the reader's
  // namespace: call it before there are others. On failure why_not() says what is missing.
  static std::unique_ptr<TwoHosts> Enter();

  const std::string& why_not() const { return why_not_; }

  // The same program, run on the source's host.
  ChildProcess::Spec OnSource(ChildProcess::Spec spec) const;
  // Shell commands there, and here; false when one failed.
  bool RunOnSource(const std::string& commands) const;
  static bool Run(const std::string& commands);

  // Of everything the source sends: a rate as tc writes it; a loss of one packet in so many, at
  // random. ClearTraffic() ends both. False where the kernel has no means for it.
  bool LimitRate(const std::string& rate) const;
  bool LoseOneIn(int packets) const;
  void ClearTraffic() const;
  // TCP segments that the source had to send again so far.
  uint64_t Retransmitted() const;
  // The cable is pulled out, and put back.
  void SetLink(bool up) const;

 private:
  TwoHosts() = default;

  std::string why_not_;
  std::unique_ptr<ChildProcess> holder_;  // Keeps the source's namespace.
};

}  // namespace peerchunk::test
