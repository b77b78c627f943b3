#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

namespace peerchunk::bench {

// A file that every contender serves: made once, in the page cache.
struct Sample {
  std::string name;  // In the folder of the samples.
  uint64_t size = 0;
  int zero_percent = 0;
};

struct Samples {
  std::string folder;
  std::vector<Sample> files;

  std::string PathOf(const Sample& sample) const { return folder + "/" + sample.name; }
};

// One file of `size` bytes (whole pages) for each share of zeros. Zeros and data, which is random,
// come in runs of up to 1 MiB, as in the memory of a guest; zeros are written, so no file system
// tells them from data.
absl::StatusOr<Samples> MakeSamples(const std::string& folder, uint64_t size,
                                    const std::vector<int>& zero_percents);

}  // namespace peerchunk::bench
