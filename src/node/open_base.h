#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "peerchunk/base/metrics.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

struct BaseOptions {
  std::string location;                 // An absolute path of a folder, or gs://BUCKET[/PREFIX].
  uint64_t read_bytes_per_second = 0;   // Of a local folder; 0: no limit.
  uint64_t write_bytes_per_second = 0;  // Of either; 0: no limit.
  bool must_exist = false;              // A local folder that is not there is NotFound, not made.
  std::string state_folder;    // What a bucket's provider keeps over a restart; empty: nothing.
  Metrics* metrics = nullptr;  // Borrowed.
};

// The one place where the location of a base becomes a provider. InvalidArgument: not a location.
absl::StatusOr<std::shared_ptr<StorageProvider>> OpenBase(const BaseOptions& options);

}  // namespace peerchunk
