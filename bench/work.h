#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "bench/sample.h"

namespace peerchunk::bench {

// Where a bulk read puts its bytes: nowhere (after whatever check this way has), into memory whose
// pages are there, into a file that was not there before, or into one of zeros whose space on the
// disk is there.
enum class Destination { kNowhere, kMemory, kFile, kAllocatedFile };

constexpr bool IsFile(Destination to) {
  return to == Destination::kFile || to == Destination::kAllocatedFile;
}

// The whole sample, in `streams` equal parts side by side.
struct BulkRead {
  const Sample& sample;
  Destination to = Destination::kNowhere;
  int streams = 1;
  absl::Span<char> memory;  // kMemory: sample.size bytes.
  std::string path;         // IsFile; in several parts: this name and more letters.
};

// Reads of `bytes` bytes at random multiples of that, `depth` under way at a time, for a while.
struct RandomReads {
  const Sample& sample;
  uint64_t bytes = 0;
  int depth = 1;
  double seconds = 0;
  uint64_t seed = 0;
};

struct ReadFigures {
  double per_second = 0;
  double p50_us = 0;
  double p99_us = 0;
};

// One thread per read under way; `read` gets the number of its thread and the offset.
absl::StatusOr<ReadFigures> ReadOnThreads(
    const RandomReads& reads, const std::function<absl::Status(int thread, uint64_t offset)>& read);

// Does `reads` while another thread does `bulk`, again and again.
absl::StatusOr<ReadFigures> ReadDuring(const std::function<absl::Status()>& bulk,
                                       const std::function<absl::StatusOr<ReadFigures>()>& reads);

struct Part {
  int index;
  uint64_t offset;
  uint64_t length;
};

// One thread per part of `size` bytes; on this one when there is one part. The parts begin at whole
// pages.
absl::Status InParts(uint64_t size, int parts, const std::function<absl::Status(Part)>& read);

}  // namespace peerchunk::bench
