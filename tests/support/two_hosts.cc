#include "tests/support/two_hosts.h"

#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace peerchunk::test {
namespace {

constexpr char kShell[] = "/bin/sh";

ChildProcess::Spec Shell(const std::string& commands) {
  return {.program = kShell, .arguments = {"-ec", "PATH=$PATH:/usr/sbin:/sbin\n" + commands}};
}

}  // namespace

std::unique_ptr<TwoHosts> TwoHosts::Enter() {
  std::unique_ptr<TwoHosts> hosts(new TwoHosts());
  const Finished tools = RunProgram(Shell("command -v ip tc nsenter unshare"));
  if (tools.exit_code != 0) {
    hosts->why_not_ = "ip, tc, nsenter or unshare is missing; found: " + tools.out;
    return hosts;
  }
  if (unshare(CLONE_NEWNET) != 0) {
    hosts->why_not_ = std::string("no network namespace may be made: ") + std::strerror(errno);
    return hosts;
  }
  // Ends by itself should this process die.
  hosts->holder_ = std::make_unique<ChildProcess>(
      Shell("exec unshare --net sh -ec 'ip link set lo up; echo 1 >/proc/sys/net/ipv4/ip_forward; "
            "echo pid $$; exec sleep 900'"));
  const std::string pid = hosts->holder_->WaitForLine("pid ");
  const std::string there = "nsenter --net=/proc/" + pid + "/ns/net ";
  const Finished made = RunProgram(
      Shell("ip link set lo up\n"
            "ip link add reader0 type veth peer name source0 netns " +
            pid + "\n" + "ip addr add " + kReader + "/24 dev reader0; ip link set reader0 up\n" +
            there + "ip addr add " + kSource + "/24 dev source0\n" + there +
            "ip link set source0 up\n" + "ip route add 10.92.0.0/16 via " + kSource + "\n" + there +
            "ip route add blackhole 10.92.0.0/16\n"));
  if (made.exit_code != 0) hosts->why_not_ = "the virtual network cannot be made: " + made.err;
  return hosts;
}

ChildProcess::Spec TwoHosts::OnSource(ChildProcess::Spec spec) const {
  std::vector<std::string> arguments = {"--net=/proc/" + std::to_string(holder_->pid()) + "/ns/net",
                                        spec.program};
  arguments.insert(arguments.end(), spec.arguments.begin(), spec.arguments.end());
  spec.program = "/usr/bin/nsenter";
  spec.arguments = std::move(arguments);
  return spec;
}

bool TwoHosts::RunOnSource(const std::string& commands) const {
  return RunProgram(OnSource(Shell(commands))).exit_code == 0;
}

bool TwoHosts::Run(const std::string& commands) {
  return RunProgram(Shell(commands)).exit_code == 0;
}

bool TwoHosts::LimitRate(const std::string& rate) const {
  return RunOnSource("tc qdisc add dev source0 root tbf rate " + rate + " burst 128k latency 50ms");
}

bool TwoHosts::LoseOneIn(int packets) const {
  // Else a packet would be up to 64 KiB.
  if (!RunOnSource("ip link set source0 gso_max_segs 1")) return false;
  // At the receiver: a sender is told of what its own host drops. Classic BPF: a random number
  // modulo `packets`; 0 is dropped (TC_ACT_SHOT). Works where the kernel has no netem.
  return Run(
      "tc qdisc add dev reader0 clsact\n"
      "tc filter add dev reader0 ingress bpf direct-action bytecode "
      "'5,32 0 0 4294963256,148 0 0 " +
      std::to_string(packets) + ",21 1 0 0,6 0 0 0,6 0 0 2'");
}

void TwoHosts::ClearTraffic() const {
  RunOnSource(
      "tc qdisc del dev source0 root 2>/dev/null || true\n"
      "ip link set source0 gso_max_segs 65535");
  Run("tc qdisc del dev reader0 clsact 2>/dev/null || true");
}

uint64_t TwoHosts::Retransmitted() const {
  const Finished found =
      RunProgram(OnSource(Shell("awk '/^Tcp:/ { if (n) print $n; else for (i = 1; i <= NF; ++i) "
                                "if ($i == \"RetransSegs\") n = i }' /proc/net/snmp")));
  return std::strtoull(found.out.c_str(), nullptr, 10);
}

void TwoHosts::SetLink(bool up) const {
  RunOnSource(std::string("ip link set source0 ") + (up ? "up" : "down"));
}

}  // namespace peerchunk::test
