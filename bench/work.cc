#include "bench/work.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <latch>
#include <random>
#include <thread>
#include <vector>

#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

double Percentile(const std::vector<double>& sorted, double share) {
  const auto index = static_cast<size_t>(share * static_cast<double>(sorted.size()));
  return sorted[std::min(index, sorted.size() - 1)];
}

absl::Status OnThreads(int count, const std::function<absl::Status(int)>& work) {
  std::vector<absl::Status> ends(count);
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&, i] { ends[i] = work(i); });
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& end : ends) PEERCHUNK_RETURN_IF_ERROR(end);
  return absl::OkStatus();
}

// What one thread of ReadOnThreads did.
struct Lane {
  SteadyClock::time_point begin;
  SteadyClock::time_point end;
  std::vector<double> read_seconds;
};

}  // namespace

absl::StatusOr<ReadFigures> ReadOnThreads(const RandomReads& reads,
                                          const std::function<absl::Status(int, uint64_t)>& read) {
  std::vector<Lane> lanes(reads.depth);
  std::latch all_there(reads.depth);
  PEERCHUNK_RETURN_IF_ERROR(OnThreads(reads.depth, [&](int thread) {
    Lane& lane = lanes[thread];
    std::mt19937_64 random(reads.seed * 1000 + thread);
    all_there.arrive_and_wait();
    lane.begin = lane.end = SteadyClock::now();
    while (Seconds(lane.end - lane.begin).count() < reads.seconds) {
      const uint64_t offset = random() % (reads.sample.size / reads.bytes) * reads.bytes;
      const auto before = lane.end;
      PEERCHUNK_RETURN_IF_ERROR(read(thread, offset));
      lane.end = SteadyClock::now();
      lane.read_seconds.push_back(Seconds(lane.end - before).count());
    }
    return absl::OkStatus();
  }));
  SteadyClock::time_point begin = lanes.front().begin;
  SteadyClock::time_point end = lanes.front().end;
  std::vector<double> all;
  for (const Lane& lane : lanes) {
    begin = std::min(begin, lane.begin);
    end = std::max(end, lane.end);
    all.insert(all.end(), lane.read_seconds.begin(), lane.read_seconds.end());
  }
  std::sort(all.begin(), all.end());
  return ReadFigures{.per_second = static_cast<double>(all.size()) / Seconds(end - begin).count(),
                     .p50_us = Percentile(all, 0.5) * 1e6,
                     .p99_us = Percentile(all, 0.99) * 1e6};
}

absl::StatusOr<ReadFigures> ReadDuring(const std::function<absl::Status()>& bulk,
                                       const std::function<absl::StatusOr<ReadFigures>()>& reads) {
  std::atomic<bool> over{false};
  absl::Status bulk_end;
  std::thread reader([&] {
    while (!over && bulk_end.ok()) bulk_end = bulk();
  });
  const absl::StatusOr<ReadFigures> figures = reads();
  over = true;
  reader.join();
  PEERCHUNK_RETURN_IF_ERROR(bulk_end);
  return figures;
}

absl::Status InParts(uint64_t size, int parts, const std::function<absl::Status(Part)>& read) {
  const uint64_t step = (size / parts + kPageBytes - 1) / kPageBytes * kPageBytes;
  const auto part = [&](int index) {
    const uint64_t offset = std::min(size, step * index);
    return Part{index, offset, index + 1 == parts ? size - offset : std::min(step, size - offset)};
  };
  if (parts == 1) return read(part(0));
  return OnThreads(parts, [&](int index) { return read(part(index)); });
}

}  // namespace peerchunk::bench
