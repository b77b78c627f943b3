// Moves the same files in several ways, taking turns, and prints what each makes of it as a ratio.
#include <sys/utsname.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/contest.h"
#include "bench/cores.h"
#include "bench/network.h"
#include "bench/targets.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/node/tune_process.h"

namespace peerchunk::bench {
namespace {

constexpr char kShared[] = "shared";
constexpr char kApart[] = "apart";

struct Settings {
  Plan plan;
  uint64_t mib = 1024;
  std::vector<int> zero_percents = {0, 38, 80};
  std::vector<std::string> contenders;  // Parts of names; none: all.
  std::string cores = kShared;
  std::string congestion_control = "reno";
  std::string folder;
  std::string json_path;
  std::string svg_path;
  double least_over_naive = 0;
  bool quick = false;

  bool Wants(const std::string& contender) const {
    return contenders.empty() ||
           std::any_of(contenders.begin(), contenders.end(), [&](const std::string& part) {
             // Ours is a part of others' names.
             return part == kPeerchunk ? contender == part : contender.find(part) != part.npos;
           });
  }
};

std::string Ground(const Settings& settings, const Network& network) {
  utsname system{};
  uname(&system);
  return absl::StrCat(network.own ? "own" : "the host's", " network namespace, TCP ",
                      network.congestion_control, ", Linux ", system.release, ", ",
                      std::thread::hardware_concurrency(), " CPUs",
                      settings.cores == kApart ? ", a half of them for each side" : "");
}

absl::StatusOr<std::vector<std::unique_ptr<RunningContender>>> StartAll(const Settings& settings,
                                                                        const Samples& samples) {
  std::vector<absl::StatusOr<Contender>> all = {
      Peerchunk(), PeerchunkOverGrpc(), PeerchunkWithTls(samples.folder), RawTcp(), NginxAndCurl(),
      Nbd(),       NaivePort()};
  PEERCHUNK_ASSIGN_OR_RETURN(const Cores cores, Cores::Create(settings.cores == kApart));
  std::vector<std::unique_ptr<RunningContender>> running;
  for (const absl::StatusOr<Contender>& contender : all) {
    if (absl::IsUnavailable(contender.status())) {
      std::cout << "left out: " << contender.status().message() << "\n";
      continue;
    }
    PEERCHUNK_RETURN_IF_ERROR(contender);
    if (!settings.Wants(contender->name)) continue;
    PEERCHUNK_ASSIGN_OR_RETURN(running.emplace_back(),
                               RunningContender::Start(*contender, samples, cores));
  }
  if (running.empty()) return absl::InvalidArgumentError("no contender has such a name");
  return running;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  if (path.empty()) return absl::OkStatus();
  std::ofstream out(path);
  out << text;
  out.close();
  return out ? absl::OkStatus() : absl::UnavailableError("cannot write " + path);
}

absl::Status WriteReports(const Settings& settings, const std::string& ground,
                          const std::vector<Measurement>& measurements,
                          const std::vector<Target>& targets) {
  nlohmann::json json = {{"ground", ground}, {"rounds", settings.plan.rounds}};
  for (const Measurement& measurement : measurements) json["works"].push_back(Json(measurement));
  json["targets"] = Json(targets);
  PEERCHUNK_RETURN_IF_ERROR(WriteFile(settings.json_path, json.dump(2) + "\n"));
  PEERCHUNK_RETURN_IF_ERROR(WriteFile(settings.svg_path, Svg(measurements, ground)));
  for (const std::string& path : {settings.json_path, settings.svg_path}) {
    if (!path.empty()) std::cout << "written: " << path << "\n";
  }
  return absl::OkStatus();
}

absl::Status CheckLeastOverNaive(const Settings& settings,
                                 const std::vector<Measurement>& measurements) {
  if (settings.least_over_naive == 0) return absl::OkStatus();
  for (const Measurement& measurement : measurements) {
    if (measurement.kind != Measurement::Kind::kBulk) continue;
    const double ratio = Comparison(measurement, measurement.rows.back()).median;
    if (measurement.rows.back().name != kNaivePort || ratio < settings.least_over_naive) {
      return absl::FailedPreconditionError(
          absl::StrCat(measurement.title, ": ", ratio, " times the naive port; at least ",
                       settings.least_over_naive, " was asked for"));
    }
  }
  return absl::OkStatus();
}

absl::Status Run(const Settings& settings, const std::string& folder) {
  PEERCHUNK_ASSIGN_OR_RETURN(const Network network, EnterOwnNetwork(settings.congestion_control));
  const std::string ground = Ground(settings, network);
  std::cout << ground << "\n";
  if (!network.note.empty()) std::cout << "note: " << network.note << "\n";
  if (network.congestion_control == "bbr") {
    std::cout << "note: BBR paces loopback down for all alike, which hides the differences\n";
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const Samples samples,
                             MakeSamples(folder, settings.mib * kMiB, settings.zero_percents));
  PEERCHUNK_ASSIGN_OR_RETURN(auto contenders, StartAll(settings, samples));
  Contest contest(settings.plan, samples, std::move(contenders));
  const std::vector<Measurement> measurements = contest.Run();
  // Of a short run they would say nothing.
  const std::vector<Target> targets =
      settings.quick ? std::vector<Target>() : TargetsIn(measurements);
  std::cout << Table(targets);
  PEERCHUNK_RETURN_IF_ERROR(WriteReports(settings, ground, measurements, targets));
  for (const absl::Status& failure : contest.failures()) std::cerr << failure << "\n";
  if (!contest.failures().empty()) return contest.failures().front();
  return CheckLeastOverNaive(settings, measurements);
}

// Small and short.
void MakeQuick(Settings& settings) {
  settings.quick = true;
  settings.mib = 16;
  settings.zero_percents = {0, 38};
  settings.plan.rounds = 1;
  settings.plan.read_kib = {4, 2048};
  settings.plan.depths = {1, 8};
  settings.plan.seconds = 0.02;
}

void AddOptions(CLI::App& app, Settings& settings) {
  Plan& plan = settings.plan;
  app.add_option("--works", plan.works, "what to measure")
      ->check(CLI::IsMember(plan.works))
      ->capture_default_str();
  app.add_option("--contenders", settings.contenders,
                 "only those whose names have one of these; \"peerchunk\" is that alone");
  app.add_option("--rounds", plan.rounds, "turns of each contender at each work")
      ->capture_default_str();
  app.add_option("--mib", settings.mib, "size of the files, in MiB")->capture_default_str();
  app.add_option("--zeros", settings.zero_percents, "zeros in each of them, in percent")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  app.add_option("--destinations", plan.destinations, "bulk: where to")
      ->check(CLI::IsMember(plan.destinations))
      ->capture_default_str();
  app.add_option("--streams", plan.streams, "bulk: streams side by side")->capture_default_str();
  app.add_option("--read-kib", plan.read_kib, "reads: their sizes, in KiB")->capture_default_str();
  app.add_option("--depths", plan.depths, "reads: how many are under way")->capture_default_str();
  app.add_option("--seconds", plan.seconds, "reads: how long a turn takes")->capture_default_str();
  app.add_option(
         "--cores", settings.cores,
         "shared by servers and clients, or apart: a half for each side, as on two machines")
      ->check(CLI::IsMember({kShared, kApart}))
      ->capture_default_str();
  app.add_option("--congestion-control", settings.congestion_control,
                 "of TCP, for all contenders, in a network namespace of their own (as root)")
      ->capture_default_str();
  app.add_option("--folder", settings.folder, "where files are made; default: TMPDIR, or /tmp");
  // bench/run gives both; what is said behind that holds.
  app.add_option("--json", settings.json_path, "also write the results here")->take_last();
  app.add_option("--svg", settings.svg_path, "also draw the ratios here")->take_last();
  app.add_option("--least-over-naive", settings.least_over_naive,
                 "fail unless every bulk work is so many times as fast as the naive port");
}

}  // namespace
}  // namespace peerchunk::bench

int main(int argc, char** argv) {
  using namespace peerchunk::bench;
  peerchunk::TuneProcess();  // As the daemon does.
  Settings settings;
  CLI::App app("Measures peerchunk against other ways to move a file, side by side.");
  AddOptions(app, settings);
  app.add_flag_callback(
      "--quick", [&] { MakeQuick(settings); }, "small and short: shows that it runs");
  CLI11_PARSE(app, argc, argv);
  if (settings.folder.empty()) {
    const char* const temporary = std::getenv("TMPDIR");
    settings.folder = temporary == nullptr ? "/tmp" : temporary;
  }
  std::string folder = settings.folder + "/peerchunk-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    std::perror(folder.c_str());
    return 1;
  }
  const absl::Status end = Run(settings, folder);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  if (!end.ok()) {
    std::cerr << "bench: " << end << "\n";
    return 1;
  }
  return 0;
}
