#pragma once

#include <sched.h>

#include <absl/status/statusor.h>

namespace peerchunk::bench {

// Which CPUs the two sides of a contest run on: all of them, or each side a half of its own, as if
// on two machines. On few CPUs it is else the scheduler that decides how much of the servers' time
// the clients' threads take, and where everybody is woken.
class Cores {
 public:
  // Of the CPUs that this thread may use. FailedPrecondition: there are not enough to part.
  static absl::StatusOr<Cores> Create(bool apart);

  // While it lives, the processes that this thread starts run on those CPUs.
  class Bound {
   public:
    explicit Bound(const cpu_set_t& cpus);
    ~Bound();
    Bound(const Bound&) = delete;
    Bound& operator=(const Bound&) = delete;

   private:
    cpu_set_t before_;
  };
  Bound BindToServers() const { return Bound(servers_); }
  Bound BindToClients() const { return Bound(clients_); }

 private:
  cpu_set_t servers_{};
  cpu_set_t clients_{};
};

}  // namespace peerchunk::bench
