// What others use to move a file: nginx with curl, and nbdkit with nbdcopy and with fio.
#include <algorithm>
#include <atomic>
#include <fstream>

#include <nlohmann/json.hpp>

#include "bench/contender.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

absl::Status Need(const std::vector<std::string>& programs, const std::string& packages) {
  for (const std::string& program : programs) {
    if (!HasProgram(program)) {
      return absl::UnavailableError(
          absl::StrCat(program, " is not installed (Debian: ", packages, ")"));
    }
  }
  return absl::OkStatus();
}

// One curl for each stream, each with a range of its own and a file of its own.
class CurlClient final : public Client {
 public:
  explicit CurlClient(int port) : url_(absl::StrCat("http://127.0.0.1:", port, "/")) {}

  absl::Status ReadAll(const BulkRead& work) override {
    // curl cuts the file that it is told to write.
    if (work.to != Destination::kNowhere && work.to != Destination::kFile) {
      return Client::ReadAll(work);
    }
    std::atomic<uint64_t> peak{0};
    PEERCHUNK_RETURN_IF_ERROR(
        InParts(work.sample.size, work.streams, [&](const Part& part) -> absl::Status {
          const std::string out =
              work.to == Destination::kNowhere
                  ? "/dev/null"
                  : absl::StrCat(work.path, part.index == 0 ? "" : "-part",
                                 part.index == 0 ? "" : absl::StrCat(part.index));
          std::vector<std::string> command = {"curl", "-sf", "-o", out, url_ + work.sample.name};
          if (work.streams > 1) {
            command.insert(command.end(),
                           {"-r", absl::StrCat(part.offset, "-", part.offset + part.length - 1)});
          }
          PEERCHUNK_ASSIGN_OR_RETURN(const ProgramRun run, RunProgram(command));
          peak += run.peak_bytes;
          return absl::OkStatus();
        }));
    programs_peak_bytes_ = peak;
    return absl::OkStatus();
  }

 private:
  const std::string url_;
};

class NbdClient final : public Client {
 public:
  explicit NbdClient(int port) : uri_(absl::StrCat("nbd://127.0.0.1:", port, "/")) {}

  absl::Status ReadAll(const BulkRead& work) override {
    if (work.to == Destination::kMemory) return Client::ReadAll(work);
    PEERCHUNK_ASSIGN_OR_RETURN(
        const ProgramRun run,
        RunProgram({"nbdcopy", absl::StrCat("--connections=", work.streams),
                    absl::StrCat("--threads=", work.streams), uri_ + work.sample.name,
                    work.to == Destination::kNowhere ? "null:" : work.path}));
    programs_peak_bytes_ = run.peak_bytes;
    return absl::OkStatus();
  }

  absl::StatusOr<ReadFigures> Read(const RandomReads& reads) override {
    PEERCHUNK_ASSIGN_OR_RETURN(
        const ProgramRun run,
        RunProgram({"fio", "--name=reads", "--ioengine=nbd", "--rw=randread", "--time_based",
                    "--output-format=json", absl::StrCat("--uri=", uri_, reads.sample.name),
                    absl::StrCat("--bs=", reads.bytes), absl::StrCat("--iodepth=", reads.depth),
                    absl::StrCat("--runtime=", static_cast<int>(reads.seconds * 1000), "ms"),
                    absl::StrCat("--randseed=", reads.seed + 1)}));
    programs_peak_bytes_ = run.peak_bytes;
    // The engine says on the same output that it is connected.
    const size_t begin = std::min(run.output.find('{'), run.output.size());
    const auto report = nlohmann::json::parse(run.output.substr(begin), nullptr, false);
    if (report.is_discarded()) return absl::InternalError("fio said: " + run.output);
    const auto& read = report["jobs"][0]["read"];
    const auto& percentiles = read["clat_ns"]["percentile"];
    return ReadFigures{.per_second = read["iops"].get<double>(),
                       .p50_us = percentiles["50.000000"].get<double>() / 1000,
                       .p99_us = percentiles["99.000000"].get<double>() / 1000};
  }

 private:
  const std::string uri_;
};

}  // namespace

absl::StatusOr<Contender> NginxAndCurl() {
  PEERCHUNK_RETURN_IF_ERROR(Need({"nginx", "curl"}, "nginx-light curl"));
  return Contender{
      .name = kNginxAndCurl,
      .serve = [](const Samples& samples) -> absl::StatusOr<std::unique_ptr<ServerProcess>> {
        PEERCHUNK_ASSIGN_OR_RETURN(const int port, FreePort());
        const std::string config = samples.folder + "/nginx.conf";
        std::ofstream(config) << "daemon off; master_process off; pid " << samples.folder
                              << "/nginx.pid; error_log stderr crit;\nevents {}\nhttp { "
                              << "access_log off; sendfile on; tcp_nopush on; server { listen "
                              << "127.0.0.1:" << port << "; root " << samples.folder << "; } }\n";
        return ServerProcess::StartProgram({"/usr/sbin/nginx", "-c", config}, port);
      },
      .connect = [](const Samples&, int port) -> absl::StatusOr<std::unique_ptr<Client>> {
        return std::make_unique<CurlClient>(port);
      }};
}

absl::StatusOr<Contender> Nbd() {
  PEERCHUNK_RETURN_IF_ERROR(Need({"nbdkit", "nbdcopy", "fio"}, "nbdkit libnbd-bin fio"));
  return Contender{
      .name = kNbd,
      .serve = [](const Samples& samples) -> absl::StatusOr<std::unique_ptr<ServerProcess>> {
        PEERCHUNK_ASSIGN_OR_RETURN(const int port, FreePort());
        return ServerProcess::StartProgram({"nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p",
                                            absl::StrCat(port), "file", "dir=" + samples.folder},
                                           port);
      },
      .connect = [](const Samples&, int port) -> absl::StatusOr<std::unique_ptr<Client>> {
        return std::make_unique<NbdClient>(port);
      }};
}

}  // namespace peerchunk::bench
