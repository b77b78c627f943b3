#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/file.h"
#include "storage/gcs_core/attempt.h"

namespace peerchunk {

// The bytes of an upload: a local file or memory. Read by several lanes at once; borrowed by the
// upload.
class UploadSource {
 public:
  virtual ~UploadSource() = default;
  virtual uint64_t size() const = 0;
  // Fills `out` from `offset`, which lies inside; DataLoss when the bytes are not there any more.
  virtual absl::Status ReadAt(uint64_t offset, absl::Span<char> out) const = 0;
  // DataLoss when the source is not what it was at first.
  virtual absl::Status CheckUnchanged() const = 0;
  // Tells this content from others of the same size, as well as it can without reading it.
  virtual std::string Fingerprint() const = 0;
};

// A regular file; FailedPrecondition for anything else.
absl::StatusOr<std::unique_ptr<UploadSource>> OpenFileSource(const std::string& path);

// `bytes` is borrowed.
std::unique_ptr<UploadSource> MemorySource(std::string_view bytes);

// The CRC32C of [begin, end), read through `buffer`; a read of gigabytes ends with its caller.
absl::StatusOr<uint32_t> HashSource(const UploadSource& source, uint64_t begin, uint64_t end,
                                    std::string& buffer, Clock& clock, const CallLimits& limits);

}  // namespace peerchunk
