#include "storage/gcs_core/object_write.h"

#include <utility>

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include "peerchunk/base/status.h"
#include "storage/gcs_core/gcs_errors.h"
#include "storage/gcs_core/object_requests.h"

namespace peerchunk {
namespace {

// Generations are microseconds since the epoch: this one was before there were buckets.
constexpr int64_t kNoGeneration = 1;

}  // namespace

absl::StatusOr<ObjectWrite> ObjectWrite::From(std::string object, const WriteOptions& options) {
  if (options.if_absent && options.if_version) {
    return absl::InvalidArgumentError("if_absent and if_version exclude each other");
  }
  ObjectWrite write;
  write.object = std::move(object);
  write.metadata = options.metadata;
  write.limits = {options.deadline, options.cancellation};
  write.suspension = options.suspension;
  if (options.if_absent) {
    write.if_generation = 0;
  } else if (options.if_version) {
    int64_t generation = 0;
    const bool parsed = absl::SimpleAtoi(*options.if_version, &generation) && generation > 0;
    write.if_generation = parsed ? generation : kNoGeneration;
  }
  return write;
}

bool ObjectWrite::WorthResumingAfter(const absl::Status& status) const {
  if (absl::IsCancelled(status)) return suspension.stop_requested();
  return WorthResuming(status);
}

absl::StatusOr<std::optional<GcsObject>> ResolveFailedPrecondition(GcsContext& context,
                                                                   const ObjectWrite& write,
                                                                   uint64_t size,
                                                                   const CrcSource& crc32c) {
  if (!write.if_generation) return std::nullopt;
  absl::StatusOr<GcsObject> live = GetObject(context, write.limits, write.object);
  if (absl::IsNotFound(live.status())) {
    if (*write.if_generation == 0) return std::nullopt;
    return absl::AbortedError("the object of the version to replace is gone");
  }
  PEERCHUNK_RETURN_IF_ERROR(live.status());
  if (live->generation == *write.if_generation) return std::nullopt;
  if (write.outcome_unknown && live->size == size) {
    PEERCHUNK_ASSIGN_OR_RETURN(const uint32_t wanted, crc32c());
    if (live->crc32c == wanted) return *live;
  }
  if (*write.if_generation == 0) return absl::AlreadyExistsError("the object is there already");
  return absl::AbortedError(absl::StrCat("the object is at version ", live->generation,
                                         " instead of ", *write.if_generation));
}

absl::Status ConfirmObject(GcsContext& context, const CallLimits& limits, GcsObject& object,
                           uint64_t size, uint32_t crc32c) {
  if (!object.crc32c) {
    PEERCHUNK_ASSIGN_OR_RETURN(GcsObject live, GetObject(context, limits, object.name));
    if (live.generation != object.generation) {
      return absl::AbortedError(absl::StrCat("generation ", object.generation, " was replaced by ",
                                             live.generation, " before it could be confirmed"));
    }
    object = std::move(live);
  }
  if (object.size == size && object.crc32c == crc32c) return absl::OkStatus();
  context.metrics.checksum_mismatches.Add();
  return absl::DataLossError(absl::StrCat("the store holds ", object.size, " bytes with CRC32C ",
                                          object.crc32c.value_or(0), ", not ", size, " with ",
                                          crc32c));
}

}  // namespace peerchunk
