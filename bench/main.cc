// Moves the same file in several ways, taking turns, and prints what each makes of it as a ratio.
#include <fcntl.h>
#include <malloc.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <random>
#include <thread>

#include <CLI/CLI.hpp>
#include <absl/time/clock.h>

#include "bench/contender.h"
#include "bench/network.h"
#include "bench/report.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

struct Settings {
  uint64_t mib = 1024;
  int rounds = 5;
  uint64_t pages = 4000;
  int zero_percent = 0;
  std::vector<int> depths = {1, 8, 32};
  std::vector<std::string> contenders;  // Parts of names; none: all.
  std::string congestion_control = "reno";
  std::string json_path;
  double least_over_naive = 0;
};

bool Wanted(const Settings& settings, const std::string& name) {
  if (settings.contenders.empty()) return true;
  return std::any_of(settings.contenders.begin(), settings.contenders.end(),
                     [&](const std::string& part) { return name.find(part) != name.npos; });
}

absl::StatusOr<Sample> MakeSample(const std::string& folder, const Settings& settings) {
  Sample sample{folder, folder + "/memfile", settings.mib * kMiB, settings.zero_percent};
  std::mt19937_64 random(42);
  std::vector<uint64_t> block(kMiB / sizeof(uint64_t));
  std::ofstream out(sample.path, std::ios::binary);
  for (uint64_t i = 0; i < settings.mib; ++i) {
    const bool zero = static_cast<int>(random() % 100) < settings.zero_percent;
    for (uint64_t& word : block) word = zero ? 0 : random();
    out.write(reinterpret_cast<const char*>(block.data()), kMiB);
  }
  out.close();
  if (!out) return absl::ResourceExhaustedError("cannot write " + sample.path);
  return sample;
}

absl::StatusOr<double> SecondsOf(const std::function<absl::Status()>& work) {
  const absl::Time start = absl::Now();
  PEERCHUNK_RETURN_IF_ERROR(work());
  return absl::ToDoubleSeconds(absl::Now() - start);
}

std::string Ground(const Network& network) {
  utsname system{};
  uname(&system);
  std::string line = absl::StrCat(network.own ? "own" : "the host's", " network namespace, TCP ",
                                  network.congestion_control, ", Linux ", system.release, ", ",
                                  std::thread::hardware_concurrency(), " CPUs\n");
  if (!network.note.empty()) absl::StrAppend(&line, "note: ", network.note, "\n");
  if (network.congestion_control == "bbr") {
    line += "note: BBR paces loopback down for all alike, which hides the differences\n";
  }
  return line;
}

using Contenders = std::vector<std::unique_ptr<Contender>>;
using Work = std::function<absl::Status(Contender&)>;

absl::StatusOr<Measurement> Measure(std::string name, std::string unit, double amount, int rounds,
                                    const Contenders& contenders, const Work& work) {
  Measurement measurement{std::move(name), std::move(unit), {}};
  for (const auto& contender : contenders) measurement.rows.push_back({contender->name(), {}, {}});
  for (int round = -1; round < rounds; ++round) {  // Round -1 warms up.
    for (size_t i = 0; i < contenders.size(); ++i) {
      Measurement::Row& row = measurement.rows[i];
      if (!row.skipped.empty()) continue;
      const auto seconds = SecondsOf([&] { return work(*contenders[i]); });
      if (absl::IsUnimplemented(seconds.status())) {
        row.skipped = std::string(seconds.status().message());
        continue;
      }
      if (!seconds.ok()) return Annotate(seconds.status(), contenders[i]->name());
      if (round >= 0) row.values.push_back(amount / *seconds);
    }
  }
  return measurement;
}

absl::Status Run(const Settings& settings, const std::string& folder) {
  PEERCHUNK_ASSIGN_OR_RETURN(const Network network, EnterOwnNetwork(settings.congestion_control));
  std::cout << Ground(network) << std::flush;
  PEERCHUNK_ASSIGN_OR_RETURN(const Sample sample, MakeSample(folder, settings));
  Contenders contenders;
  for (const auto start : {StartOurs, StartRawTcp, StartNaive, StartNginx}) {
    auto started = start(sample);
    if (absl::IsUnavailable(started.status())) {
      std::cerr << "left out: " << started.status().message() << "\n";
      continue;
    }
    PEERCHUNK_RETURN_IF_ERROR(started);
    if (!Wanted(settings, (*started)->name())) continue;
    contenders.push_back(*std::move(started));
  }
  for (const auto& contender : contenders) PEERCHUNK_RETURN_IF_ERROR(contender->Connect());
  std::vector<Measurement> results;
  PEERCHUNK_ASSIGN_OR_RETURN(
      results.emplace_back(),
      Measure(absl::StrCat("bulk: ", settings.mib, " MiB, ", settings.zero_percent, " % zeros"),
              "GiB/s", static_cast<double>(settings.mib) / 1024, settings.rounds, contenders,
              [](Contender& contender) { return contender.ReadAll(); }));
  for (const int depth : settings.depths) {
    if (settings.pages == 0) break;
    std::mt19937_64 random(depth);
    const auto next = [&] { return random() % (sample.size / kPageBytes) * kPageBytes; };
    PEERCHUNK_ASSIGN_OR_RETURN(results.emplace_back(),
                               Measure(absl::StrCat("random 4 KiB reads, ", depth, " at a time"),
                                       "reads/s", static_cast<double>(settings.pages),
                                       settings.rounds, contenders, [&](Contender& contender) {
                                         return contender.ReadPages(settings.pages, depth, next);
                                       }));
  }
  std::cout << Table(results);
  if (!settings.json_path.empty()) {
    std::ofstream(settings.json_path) << Json(results);
  }
  const double over_naive = Ratio(results.front(), "naive port (4 KiB messages)");
  if (over_naive < settings.least_over_naive) {
    return absl::FailedPreconditionError(absl::StrCat("bulk is ", over_naive,
                                                      " times the naive port; at least ",
                                                      settings.least_over_naive, " was asked for"));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace peerchunk::bench

int main(int argc, char** argv) {
  using namespace peerchunk::bench;
  // As the daemon does: glibc otherwise gives memory back and faults it in again all the time.
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  mallopt(M_TOP_PAD, 64 << 20);
  Settings settings;
  bool quick = false;
  CLI::App app(
      "Measures peerchunk against raw TCP, nginx with curl and a naive port, side by side.");
  app.add_option("--mib", settings.mib, "size of the file, in MiB")->capture_default_str();
  app.add_option("--rounds", settings.rounds, "rounds per work")->capture_default_str();
  app.add_option("--pages", settings.pages, "4 KiB reads per round")->capture_default_str();
  app.add_option("--zeros", settings.zero_percent, "share of zero blocks, in percent")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  app.add_option("--depths", settings.depths, "how many page reads are under way at a time");
  app.add_option("--contenders", settings.contenders,
                 "only those whose names contain one of these");
  app.add_option("--congestion-control", settings.congestion_control,
                 "of TCP, for all contenders, in a network namespace of their own (as root)")
      ->capture_default_str();
  app.add_option("--json", settings.json_path, "also write the results here");
  app.add_option("--least-over-naive", settings.least_over_naive,
                 "fail unless bulk is so many times the naive port");
  app.add_flag("--quick", quick, "small and short: shows that it runs");
  CLI11_PARSE(app, argc, argv);
  if (quick) {
    settings.mib = 32;
    settings.rounds = 1;
    settings.pages = 200;
  }
  char folder[] = "/tmp/peerchunk-bench-XXXXXX";
  if (mkdtemp(folder) == nullptr) {
    std::perror("mkdtemp");
    return 1;
  }
  const absl::Status end = Run(settings, folder);
  (void)peerchunk::File::Open("/tmp", O_RDONLY | O_DIRECTORY)->RemoveTree(folder + 5);
  if (!end.ok()) {
    std::cerr << "bench: " << end << "\n";
    return 1;
  }
  return 0;
}
