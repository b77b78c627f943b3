#include "bench/sample.h"

#include <fcntl.h>

#include <algorithm>
#include <random>

#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

absl::Status Write(const std::string& path, uint64_t size, int zero_percent) {
  PEERCHUNK_ASSIGN_OR_RETURN(const File file,
                             File::Open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC));
  std::mt19937_64 random(42);
  std::vector<uint64_t> run(kMiB / sizeof(uint64_t));
  for (uint64_t offset = 0; offset < size;) {
    const bool zero = static_cast<int>(random() % 100) < zero_percent;
    const uint64_t pages = 1 + random() % (kMiB / kPageBytes);
    const uint64_t length = std::min(pages * kPageBytes, size - offset);
    const auto end = run.begin() + static_cast<ptrdiff_t>(length / sizeof(uint64_t));
    std::generate(run.begin(), end, [&]() -> uint64_t { return zero ? 0 : random(); });
    PEERCHUNK_RETURN_IF_ERROR(
        file.WriteAt(offset, {reinterpret_cast<const char*>(run.data()), length}));
    offset += length;
  }
  // Before anything is measured, so that the disk is quiet then.
  return file.Sync();
}

}  // namespace

absl::StatusOr<Samples> MakeSamples(const std::string& folder, uint64_t size,
                                    const std::vector<int>& zero_percents) {
  Samples samples{folder, {}};
  for (const int percent : zero_percents) {
    Sample sample{absl::StrCat("memfile-", percent), size, percent};
    PEERCHUNK_RETURN_IF_ERROR(Write(samples.PathOf(sample), size, percent));
    samples.files.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace peerchunk::bench
