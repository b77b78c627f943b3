#include "daemon/process_metrics.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>

namespace peerchunk {
namespace {

// The time of this process's start in seconds since 1970: the start of the machine, and the field
// "starttime" of proc(5), in clock ticks after it.
std::optional<double> StartTimeSeconds() {
  std::ifstream machine("/proc/stat");
  std::string name;
  double booted = 0;
  while (machine >> name && name != "btime") machine.ignore(1 << 20, '\n');
  if (!(machine >> booted)) return std::nullopt;

  std::ifstream process("/proc/self/stat");
  std::string line;
  std::getline(process, line);
  // The second field, the program's name, is in parentheses and may have any character.
  const size_t named = line.rfind(')');
  if (named == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(named + 1));
  std::string field;
  constexpr int kStartTime = 22;
  for (int i = 3; i < kStartTime; ++i) fields >> field;
  double ticks = 0;
  if (!(fields >> ticks)) return std::nullopt;
  return booted + ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// One of the descriptors is the one that reads the folder.
std::optional<double> OpenFds() {
  std::error_code error;
  double count = -1;
  std::filesystem::directory_iterator entry("/proc/self/fd", error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) ++count;
  if (error) return std::nullopt;
  return count;
}

}  // namespace

std::vector<MetricSample> ProcessSamples() {
  std::vector<MetricSample> samples;
  const auto add = [&samples](const char* name, double value, bool is_counter = false) {
    samples.push_back({.name = name, .labels = {}, .value = value, .is_counter = is_counter});
  };
  timespec cpu{};
  if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0) {
    add("process_cpu_seconds_total",
        static_cast<double>(cpu.tv_sec) + static_cast<double>(cpu.tv_nsec) / 1e9,
        /*is_counter=*/true);
  }
  rlimit fds{};
  if (getrlimit(RLIMIT_NOFILE, &fds) == 0) {
    add("process_max_fds", static_cast<double>(fds.rlim_cur));
  }
  if (const std::optional<double> open = OpenFds()) add("process_open_fds", *open);
  const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  std::ifstream memory("/proc/self/statm");
  double virtual_pages = 0;
  double resident_pages = 0;
  const bool known = static_cast<bool>(memory >> virtual_pages >> resident_pages);
  if (known) add("process_resident_memory_bytes", resident_pages * page_bytes);
  static const std::optional<double> started = StartTimeSeconds();
  if (started) add("process_start_time_seconds", *started);
  if (known) add("process_virtual_memory_bytes", virtual_pages * page_bytes);
  return samples;
}

}  // namespace peerchunk
