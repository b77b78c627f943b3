#include "bench/cores.h"

#include <cerrno>

#include "peerchunk/base/status.h"

namespace peerchunk::bench {

absl::StatusOr<Cores> Cores::Create(bool apart) {
  cpu_set_t all;
  if (sched_getaffinity(0, sizeof(all), &all) != 0) return ErrnoStatus(errno, "find the CPUs");
  Cores cores;
  if (!apart) {
    cores.servers_ = cores.clients_ = all;
    return cores;
  }
  const int count = CPU_COUNT(&all);
  if (count < 2) return absl::FailedPreconditionError("one CPU cannot be parted");
  int given = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, given++ < count / 2 ? &cores.servers_ : &cores.clients_);
  }
  return cores;
}

// Neither can fail: the CPUs are among those that the thread had.
Cores::Bound::Bound(const cpu_set_t& cpus) {
  sched_getaffinity(0, sizeof(before_), &before_);
  sched_setaffinity(0, sizeof(cpus), &cpus);
}

Cores::Bound::~Bound() { sched_setaffinity(0, sizeof(before_), &before_); }

}  // namespace peerchunk::bench
