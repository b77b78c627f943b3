#pragma once

#include <optional>
#include <string>

#include "google/storage/v2/storage.pb.h"
#include "storage/gcs_core/gcs_stub.h"

// Between google.storage.v2's messages and the plain structs of gcs_core.

namespace peerchunk {

namespace gcs_v2 = google::storage::v2;

// "projects/_/buckets/NAME".
std::string BucketResource(const std::string& bucket);

GcsObject FromMessage(const gcs_v2::Object& message);
gcs_v2::WriteObjectSpec ToMessage(const GcsWriteSpec& spec, const std::string& bucket);

// WriteObjectResponse and QueryWriteStatusResponse have the same fields.
template <typename Response>
GcsWriteStatus StatusFromMessage(const Response& response) {
  GcsWriteStatus status;
  if (response.has_resource()) status.resource = FromMessage(response.resource());
  if (response.persisted_size() > 0) {
    status.persisted_size = static_cast<uint64_t>(response.persisted_size());
  }
  if (response.persisted_data_checksums().has_crc32c()) {
    status.persisted_crc32c = response.persisted_data_checksums().crc32c();
  }
  return status;
}

}  // namespace peerchunk
