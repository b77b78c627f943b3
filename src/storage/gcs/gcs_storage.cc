#include "peerchunk/storage/gcs_storage.h"

#include <utility>

#include "base/logging.h"
#include "peerchunk/base/status.h"
#include "storage/gcs/channels.h"
#include "storage/gcs_core/gcs_provider.h"

namespace peerchunk {
namespace {

constexpr absl::Duration kBucketCheckBudget = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::unique_ptr<StorageProvider>> GcsStorageProvider::Open(
    GcsStorageOptions options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const GcsTarget target,
                             ChooseGcsTarget(options, GcsEnvironment::OfProcess()));
  PEERCHUNK_ASSIGN_OR_RETURN(std::unique_ptr<GcsContext> context,
                             MakeGcsContext(options, MakeGcsStubs(options, target)));
  bool reachable = false;
  PEERCHUNK_RETURN_IF_ERROR(CheckGcsBucket(*context, kBucketCheckBudget, &reachable));
  if (!reachable) {
    Logger("storage").warn("event=bucket_out_of_reach bucket={} endpoint={}", options.bucket,
                           target.endpoint);
  }
  return MakeGcsProvider(std::move(context));
}

}  // namespace peerchunk
