#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "peerchunk/base/clock.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

struct LocalStorageOptions {
  std::string folder;  // Created when missing.
  // Upper bound on bytes read from and on bytes written to this provider per second, each over all
  // callers; 0: none. Lets a local upload take as long as a real one.
  uint64_t read_bytes_per_second = 0;
  uint64_t write_bytes_per_second = 0;
  Clock* clock = &Clock::Real();  // Borrowed.
};

// A folder that plays the bucket. An object is a plain file at its path; it appears whole, by
// rename, or not at all. Size, CRC32C and user metadata are kept beside it under ".peerchunk/",
// bound to the very inode that they describe, so no crash can pair an object with another's
// checksum. Several processes may share the folder.
class LocalStorageProvider {
 public:
  // Fails when the folder cannot be made or written to, and says which and why.
  static absl::StatusOr<std::unique_ptr<StorageProvider>> Open(LocalStorageOptions options);
};

}  // namespace peerchunk
