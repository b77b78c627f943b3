#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/report.h"
#include "bench/running.h"

namespace peerchunk::bench {

struct NamedDestination;

// What Plan::destinations may have.
std::vector<std::string> DestinationIds();

// What is measured.
struct Plan {
  std::vector<std::string> works = {"memory", "bulk", "reads", "demand"};
  int rounds = 5;
  std::vector<std::string> destinations = DestinationIds();  // Of bulk,
  std::vector<int> streams = {1, 4};                         // so many side by side.
  std::vector<uint64_t> read_kib = {4, 64, 2048};            // Of reads,
  std::vector<int> depths = {1, 8, 32, 128};                 // so many at a time,
  double seconds = 0.4;                                      // for so long per round.
};

// Lets the contenders take turns at every work of the plan. Used by one thread.
class Contest {
 public:
  // `samples`, one per share of zeros, outlives it. The first contender is ours.
  Contest(Plan plan, const Samples& samples,
          std::vector<std::unique_ptr<RunningContender>> contenders)
      : plan_(std::move(plan)), samples_(samples), contenders_(std::move(contenders)) {}

  // Prints the table of each work when it is done.
  std::vector<Measurement> Run();
  // What went wrong in Run; the rows of it are left empty.
  const std::vector<absl::Status>& failures() const { return failures_; }

 private:
  struct Turn {
    RunningContender* contender;
    Order order;
  };

  bool Wanted(const std::string& work) const;
  void MeasureBulk(const NamedDestination& to, int streams, size_t sample);
  void MeasureReads(uint64_t kib, int depth);
  void MeasureDemandUnderBulk();
  void MeasureMemory(RunningContender& ours, const absl::StatusOr<uint64_t>& at_rest);
  // One turn for each row.
  void Measure(Measurement measurement, std::vector<Turn> turns);
  void Report(Measurement measurement);

  const Plan plan_;
  const Samples& samples_;
  const std::vector<std::unique_ptr<RunningContender>> contenders_;
  std::vector<Measurement> measurements_;
  std::vector<absl::Status> failures_;
};

}  // namespace peerchunk::bench
