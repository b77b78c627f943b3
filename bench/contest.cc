#include "bench/contest.h"

#include <algorithm>
#include <iostream>

#include "bench/format.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {

struct NamedDestination {
  Destination value;
  const char* id;
  const char* text;
};

namespace {

constexpr NamedDestination kDestinations[] = {
    {Destination::kNowhere, "nowhere", "thrown away"},
    {Destination::kMemory, "memory", "to warm memory"},
    {Destination::kFile, "file", "to a fresh file"},
    {Destination::kAllocatedFile, "allocated-file", "to a fresh preallocated file"},
};

using Kind = Measurement::Kind;

std::string SizeOf(const Sample& sample) {
  return absl::StrCat(sample.size / kMiB, " MiB, ", sample.zero_percent, " % zeros");
}

std::string KibText(uint64_t kib) {
  return kib % 1024 == 0 ? absl::StrCat(kib / 1024, " MiB") : absl::StrCat(kib, " KiB");
}

double Gib(const Sample& sample) { return static_cast<double>(sample.size) / kGiB; }

bool Has(const std::vector<std::string>& list, const std::string& one) {
  return std::find(list.begin(), list.end(), one) != list.end();
}

}  // namespace

std::vector<std::string> DestinationIds() {
  std::vector<std::string> ids;
  for (const NamedDestination& destination : kDestinations) ids.emplace_back(destination.id);
  return ids;
}

std::vector<Measurement> Contest::Run() {
  const auto ours = std::find_if(contenders_.begin(), contenders_.end(),
                                 [](const auto& one) { return one->name() == kPeerchunk; });
  const bool memory = Wanted("memory") && ours != contenders_.end();
  // Before the server has worked.
  const absl::StatusOr<uint64_t> at_rest = memory ? (*ours)->ServerBytes() : 0;
  if (Wanted("bulk")) {
    for (const NamedDestination& destination : kDestinations) {
      if (!Has(plan_.destinations, destination.id)) continue;
      for (const int streams : plan_.streams) {
        for (size_t sample = 0; sample < samples_.files.size(); ++sample) {
          MeasureBulk(destination, streams, sample);
        }
      }
    }
  }
  if (Wanted("reads")) {
    for (const uint64_t kib : plan_.read_kib) {
      for (const int depth : plan_.depths) MeasureReads(kib, depth);
    }
  }
  if (Wanted("demand")) MeasureDemandUnderBulk();
  // Last: so many clients leave their process with a large heap.
  if (memory) MeasureMemory(**ours, at_rest);
  return std::move(measurements_);
}

bool Contest::Wanted(const std::string& work) const { return Has(plan_.works, work); }

void Contest::MeasureMemory(RunningContender& ours, const absl::StatusOr<uint64_t>& at_rest) {
  constexpr int kClients = 16;
  const Sample& sample = samples_.files.front();
  Measurement measurement{.id = "memory",
                          .title = absl::StrCat("memory of peerchunk's server, ", SizeOf(sample)),
                          .kind = Kind::kMemory,
                          .gib = kClients * Gib(sample),
                          .rows = {{"at rest", {}}, {absl::StrCat(kClients, " clients"), {}}}};
  const int rounds = std::min(plan_.rounds, 2);  // The most that was resident: seldom differs.
  const auto work = [&]() -> absl::Status {
    PEERCHUNK_RETURN_IF_ERROR(at_rest);
    measurement.rows[0].rounds.push_back({.server_bytes = *at_rest});
    for (int round = 0; round < rounds; ++round) {
      PEERCHUNK_ASSIGN_OR_RETURN(measurement.rows[1].rounds.emplace_back(),
                                 ours.Do({.kind = Order::Kind::kManyClients, .clients = kClients}));
    }
    return absl::OkStatus();
  };
  if (const absl::Status end = work(); !end.ok()) {
    failures_.push_back(Annotate(end, measurement.title));
    return;
  }
  Report(std::move(measurement));
}

void Contest::MeasureBulk(const NamedDestination& to, int streams, size_t sample) {
  const Sample& file = samples_.files[sample];
  std::vector<Turn> turns;
  for (const auto& contender : contenders_) {
    turns.push_back({contender.get(), {.sample = sample, .to = to.value, .streams = streams}});
  }
  Measure({.id = Format("bulk/%s/zeros-%d/streams-%d", to.id, file.zero_percent, streams),
           .title = Format("bulk %s, %s, %d stream%s", to.text, SizeOf(file).c_str(), streams,
                           streams == 1 ? "" : "s"),
           .kind = Kind::kBulk,
           .gib = Gib(file)},
          std::move(turns));
}

void Contest::MeasureReads(uint64_t kib, int depth) {
  std::vector<Turn> turns;
  for (const auto& contender : contenders_) {
    turns.push_back({contender.get(),
                     {.kind = Order::Kind::kReads,
                      .bytes = kib * 1024,
                      .depth = depth,
                      .seconds = plan_.seconds}});
  }
  Measure({.id = absl::StrCat("reads/", kib, "/depth-", depth),
           .title = absl::StrCat("random reads of ", KibText(kib), ", depth ", depth),
           .kind = Kind::kReads},
          std::move(turns));
}

void Contest::MeasureDemandUnderBulk() {
  Measurement measurement{.id = "demand",
                          .title = "random reads of 4 KiB, depth 1, alone and under a bulk read",
                          .kind = Kind::kUnderBulk};
  std::vector<Turn> turns;
  for (const auto& contender : contenders_) {
    Order order{.kind = Order::Kind::kReads, .bytes = kPageBytes, .seconds = plan_.seconds};
    turns.push_back({contender.get(), order});
    measurement.rows.push_back({contender->name() + ", alone", {}});
    order.kind = Order::Kind::kReadsUnderBulk;
    turns.push_back({contender.get(), order});
    measurement.rows.push_back({contender->name() + ", under bulk", {}});
  }
  Measure(std::move(measurement), std::move(turns));
}

void Contest::Measure(Measurement measurement, std::vector<Turn> turns) {
  if (measurement.rows.empty()) {
    for (const Turn& turn : turns) measurement.rows.push_back({turn.contender->name(), {}});
  }
  std::vector<bool> out(turns.size());
  const int first = plan_.rounds > 1 ? -1 : 0;  // Round -1 warms up.
  for (int round = first; round < plan_.rounds; ++round) {
    for (size_t i = 0; i < turns.size(); ++i) {
      if (out[i]) continue;
      turns[i].order.seed = static_cast<uint64_t>(round + 1);
      const absl::StatusOr<Outcome> outcome = turns[i].contender->Do(turns[i].order);
      if (!outcome.ok()) {
        out[i] = true;
        measurement.rows[i].rounds.clear();
        if (!absl::IsUnimplemented(outcome.status())) {
          failures_.push_back(Annotate(outcome.status(), measurement.title));
        }
      } else if (round >= 0) {
        measurement.rows[i].rounds.push_back(*outcome);
      }
    }
  }
  Report(std::move(measurement));
}

void Contest::Report(Measurement measurement) {
  std::cout << Table(measurement) << std::flush;
  measurements_.push_back(std::move(measurement));
}

}  // namespace peerchunk::bench
