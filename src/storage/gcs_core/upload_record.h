#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/time/time.h>

namespace peerchunk {

// How far a large upload was planned: enough to go on with its sessions, or to take from the server
// what it left.
struct UploadRecord {
  std::string object;
  uint64_t size = 0;
  std::string fingerprint;            // Of the content and of how it is to be written.
  uint64_t part_bytes = 0;            // == size for an upload in one session.
  std::string id;                     // A UUID; names the parts.
  std::vector<std::string> sessions;  // One upload id per part, empty before it begins.
  absl::Time written;                 // When it was recorded last; whole seconds on disk.
};

// As it lies on disk.
struct StoredUploadRecord {
  std::string bucket;
  UploadRecord record;
};

std::string EncodeUploadRecord(const StoredUploadRecord& stored);

// Nothing for a record that does not hang together: any bytes may have come to lie there.
std::optional<StoredUploadRecord> DecodeUploadRecord(std::string_view text);

}  // namespace peerchunk
