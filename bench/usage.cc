#include "bench/usage.h"

#include <sys/resource.h>
#include <time.h>

#include <fstream>
#include <string>

#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

std::string PathOf(pid_t pid, const char* file) { return absl::StrCat("/proc/", pid, "/", file); }

absl::StatusOr<uint64_t> StatusLine(pid_t pid, const std::string& key) {
  std::ifstream status(PathOf(pid, "status"));
  for (std::string word; status >> word;) {
    uint64_t kib = 0;
    if (word == key && status >> kib) return kib * 1024;
  }
  return absl::NotFoundError(absl::StrCat("process ", pid, " has no ", key));
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

}  // namespace

double CpuSecondsOf(pid_t pid) {
  clockid_t clock{};
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

double OwnCpuSeconds() {
  double seconds = 0;
  for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage usage{};
    getrusage(who, &usage);
    seconds += Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  }
  return seconds;
}

absl::StatusOr<uint64_t> ResidentBytes(pid_t pid) { return StatusLine(pid, "VmRSS:"); }
absl::StatusOr<uint64_t> PeakResidentBytes(pid_t pid) { return StatusLine(pid, "VmHWM:"); }

void ResetPeak(pid_t pid) { std::ofstream(PathOf(pid, "clear_refs")) << 5; }

}  // namespace peerchunk::bench
