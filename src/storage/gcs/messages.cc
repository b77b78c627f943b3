#include "storage/gcs/messages.h"

#include <algorithm>

#include <absl/strings/str_cat.h>

namespace peerchunk {

std::string BucketResource(const std::string& bucket) {
  return absl::StrCat("projects/_/buckets/", bucket);
}

GcsObject FromMessage(const gcs_v2::Object& message) {
  GcsObject object;
  object.name = message.name();
  object.generation = message.generation();
  object.size = static_cast<uint64_t>(std::max<int64_t>(0, message.size()));
  if (message.checksums().has_crc32c()) object.crc32c = message.checksums().crc32c();
  object.metadata.insert(message.metadata().begin(), message.metadata().end());
  return object;
}

gcs_v2::WriteObjectSpec ToMessage(const GcsWriteSpec& spec, const std::string& bucket) {
  gcs_v2::WriteObjectSpec message;
  message.mutable_resource()->set_bucket(BucketResource(bucket));
  message.mutable_resource()->set_name(spec.object);
  message.mutable_resource()->mutable_metadata()->insert(spec.metadata.begin(),
                                                         spec.metadata.end());
  if (spec.if_generation) message.set_if_generation_match(*spec.if_generation);
  if (spec.object_size) message.set_object_size(static_cast<int64_t>(*spec.object_size));
  return message;
}

}  // namespace peerchunk
