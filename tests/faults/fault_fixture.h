#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/logging.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/peer/peer_directory.h"
#include "peerchunk/storage/local_storage.h"
#include "tests/faults/watchdog.h"
#include "tests/support/status_asserts.h"
#include "tests/support/tool_fixture.h"
#include "tests/support/transport.h"

namespace peerchunk::test {

// A build so large that one percent of its memfile is more than what the kernel holds of a stream,
// and where its files lie: snapshot/ to pause, base/ as an upload leaves them. Made once.
struct LargeBuildFiles {
  LargeBuildFiles() {
    build.WriteTo(folder, "snapshot");
    auto base = LocalStorageProvider::Open({.folder = folder.PathOf("base")});
    EXPECT_OK(base);
    for (const auto& [kind, bytes] : build.files) {
      auto blob = (*base)->OpenBlob(BuildFileId{build.id, kind}.ObjectPath());
      EXPECT_OK(blob);
      EXPECT_OK((*blob)->Put(bytes, {}));
    }
  }

  const TestBuild build =
      MakeTestBuild({.memfile_bytes = 192 * kMiB, .rootfs_bytes = kMiB, .seed = 41});
  TempDir folder{TempDir::Place::kMemory};
};

// Short where a test waits for a budget to run out.
inline PeerBudgets ShortBudgets() {
  PeerBudgets budgets;
  budgets.dial = budgets.first_byte = budgets.stall = absl::Milliseconds(500);
  budgets.hedge_ceiling = absl::Milliseconds(100);
  return budgets;
}
// For tests in which nothing may run out, however slow the machine.
inline PeerBudgets PatientBudgets() {
  PeerBudgets budgets;
  budgets.dial = budgets.first_byte = budgets.stall = absl::Minutes(10);
  return budgets;
}

// What came of reading one file.
struct ReadOutcome {
  absl::Status status;
  bool identical = false;  // Every byte, once, in order.
  absl::Duration took;
  absl::Duration longest_pause;  // Between two runs of bytes.
  SourceBytes bytes;
};

// A process's reading side over the real network: directory, connections, hedges, counters.
class FaultReader {
 public:
  struct Options {
    std::string base_folder;
    uint64_t base_bytes_per_second = 0;
    PeerBudgets budgets;
    Transport transport = Transport::kHttp2;
    bool hedges = true;
  };

  FaultReader(const TestBuild& build, const std::vector<std::string>& addresses,
              const Options& options)
      : build_(build) {
    auto base = LocalStorageProvider::Open(
        {.folder = options.base_folder, .read_bytes_per_second = options.base_bytes_per_second});
    EXPECT_OK(base);
    auto policy = AddressPolicy::Create(
        {.networks = {"127.0.0.0/8", "10.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}});
    EXPECT_OK(policy);
    auto made = PeerDirectory::Create({.policy = *std::move(policy),
                                       .connector = ConnectorOver(options.transport),
                                       .budgets = options.budgets,
                                       .executor = options.hedges ? &pool_ : nullptr,
                                       .metrics = &metrics});
    EXPECT_OK(made);
    directory = *std::move(made);
    auto opened = directory->OpenBuild(build.id, addresses, *std::move(base));
    EXPECT_OK(opened);
    provider = *std::move(opened);
  }

  std::unique_ptr<Seekable> Open(FileKind kind = FileKind::kMemfile) const {
    auto object = provider->OpenSeekable(BuildFileId{build_.id, kind}.ObjectPath());
    EXPECT_OK(object);
    return *std::move(object);
  }
  // So that the sources know of the file and are known.
  void Greet() const { EXPECT_OK(Open()->Stat({.deadline = Deadline()})); }

  // Reads the memfile as one stream; `on_bytes` is told how far it got.
  ReadOutcome Read(const std::function<void(uint64_t)>& on_bytes = {}, ReadOptions options = {},
                   uint64_t begin = 0, uint64_t length = UINT64_MAX) const {
    const std::string& expected = build_.files.at(FileKind::kMemfile);
    if (options.deadline == absl::InfiniteFuture()) options.deadline = Deadline();
    length = std::min(length, expected.size() - begin);
    ReadOutcome outcome;
    const SourceBytes before = Bytes();
    const absl::Time started = Clock::Real().Now();
    uint64_t reached = begin;
    outcome.status = [&]() -> absl::Status {
      PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<RangeReader> reader,
                                 Open()->OpenRangeReader(begin, length, options));
      bool right = true;
      absl::Time latest = started;
      while (true) {
        PEERCHUNK_ASSIGN_OR_RETURN(const auto extent, reader->Next());
        if (!extent) break;
        const absl::Time now = Clock::Real().Now();
        outcome.longest_pause = std::max(outcome.longest_pause, now - latest);
        latest = now;
        right = right && extent->offset == reached && Same(*extent, expected);
        reached += extent->length;
        if (on_bytes) on_bytes(reached);
      }
      outcome.identical = right && reached == begin + length;
      return absl::OkStatus();
    }();
    outcome.took = Clock::Real().Now() - started;
    const SourceBytes after = Bytes();
    outcome.bytes = {.peer = after.peer - before.peer,
                     .base = after.base - before.base,
                     .wasted = after.wasted - before.wasted};
    return outcome;
  }

  SourceBytes Bytes(FileKind kind = FileKind::kMemfile) const {
    return directory->BytesOf({build_.id, kind});
  }
  uint64_t Fallbacks(const std::string& reason) const {
    return metrics.CounterValue("peerchunk_fallbacks_total", {{"reason", reason}});
  }
  uint64_t Fallbacks() const {
    uint64_t sum = 0;
    for (const MetricSample& sample : metrics.Snapshot()) {
      if (sample.name == "peerchunk_fallbacks_total") sum += static_cast<uint64_t>(sample.value);
    }
    return sum;
  }
  uint64_t Quarantines(const std::string& reason) const {
    return metrics.CounterValue("peerchunk_quarantines_total", {{"reason", reason}});
  }
  uint64_t Hedges(const std::string& outcome) const {
    return metrics.CounterValue("peerchunk_hedges_total", {{"outcome", outcome}});
  }
  uint64_t Breaker(const std::string& outcome) const {
    return metrics.CounterValue("peerchunk_breaker_transitions_total", {{"outcome", outcome}});
  }

  // Beyond what the watchdog allows.
  static absl::Time Deadline() { return Clock::Real().Now() + absl::Minutes(10); }

  Metrics metrics;

 private:
  static bool Same(const Extent& extent, const std::string& expected) {
    if (extent.length > expected.size() - extent.offset) return false;
    const char* at = expected.data() + extent.offset;
    if (extent.zero) return std::all_of(at, at + extent.length, [](char c) { return c == 0; });
    for (const std::string_view piece : extent.pieces) {
      if (std::memcmp(piece.data(), at, piece.size()) != 0) return false;
      at += piece.size();
    }
    return true;
  }

  const TestBuild& build_;
  ThreadPool pool_{"hedge", 4};

 public:
  std::unique_ptr<PeerDirectory> directory;
  std::shared_ptr<StorageProvider> provider;
};

// A base that has the build already, a source that serves it while its own upload is far from over,
// and a reader of both, over the transport that nodes use unless a test says another; each test
// with a watchdog.
class FaultsTest : public ToolFixture {
 protected:
  explicit FaultsTest(Transport transport = Transport::kHttp2) : transport_(transport) {
    Logger("peer").set_level(spdlog::level::off);
  }
  ~FaultsTest() override { Logger("peer").set_level(spdlog::level::info); }

  // Freed with the program's other statics: the folder goes with it.
  static const LargeBuildFiles& Large() {
    static const LargeBuildFiles files;
    return files;
  }
  static const TestBuild& Build() { return Large().build; }

  std::unique_ptr<DaemonProcess> StartSource() {
    const std::string name = "source-" + std::to_string(++sources_);
    auto source = std::make_unique<DaemonProcess>(Path(name), Path(name + "-base"), kSlowBase);
    const Finished paused = source->Tool({"pause", "--folder", Large().folder.PathOf("snapshot")});
    EXPECT_EQ(paused.exit_code, 0) << paused.err;
    return source;
  }
  FaultReader::Options ReaderOptions(const PeerBudgets& budgets) {
    return {.base_folder = Large().folder.PathOf("base"),
            .base_bytes_per_second = 0,
            .budgets = budgets,
            .transport = transport_};
  }
  static uint64_t FileSize() { return Build().files.at(FileKind::kMemfile).size(); }

  // What holds whatever happened, and what is told of it.
  void ExpectWhole(const ReadOutcome& outcome, const std::string& what) {
    EXPECT_TRUE(outcome.status.ok()) << what << ": " << outcome.status;
    EXPECT_TRUE(outcome.identical) << what;
    EXPECT_EQ(outcome.bytes.peer + outcome.bytes.base, FileSize()) << what;
    Report(what + "_ms", absl::ToDoubleMilliseconds(outcome.took));
    Report(what + "_longest_pause_ms", absl::ToDoubleMilliseconds(outcome.longest_pause));
    Report(what + "_peer_percent",
           100.0 * static_cast<double>(outcome.bytes.peer) / static_cast<double>(FileSize()));
  }
  void Report(const std::string& name, double value) {
    RecordProperty(name, std::to_string(value));
    std::printf("  %-56s %10.2f\n", name.c_str(), value);
  }

  const Transport transport_;
  int sources_ = 0;
  Watchdog watchdog_{absl::Seconds(60)};
};

}  // namespace peerchunk::test
