#include "node/open_base.h"

#include <sys/stat.h>

#include <utility>

#include "peerchunk/base/status.h"
#include "peerchunk/storage/gcs_storage.h"
#include "peerchunk/storage/local_storage.h"

namespace peerchunk {
namespace {

// Upload sessions to a bucket at a time, as a provider makes by itself.
constexpr size_t kUploadLanes = 8;

}  // namespace

absl::StatusOr<std::shared_ptr<StorageProvider>> OpenBase(const BaseOptions& options) {
  if (options.location.starts_with("gs://")) {
    if (options.read_bytes_per_second != 0) {
      return absl::InvalidArgumentError(
          "a rate of reads is for a local folder only; leave it out with a bucket");
    }
    PEERCHUNK_ASSIGN_OR_RETURN(GcsUrl url, ParseGcsUrl(options.location));
    GcsStorageOptions gcs;
    gcs.bucket = std::move(url.bucket);
    gcs.prefix = std::move(url.prefix);
    if (!options.state_folder.empty()) gcs.session_folder = options.state_folder;
    gcs.metrics = options.metrics;
    gcs.lanes = GcsUploadLanes::Create(kUploadLanes, options.write_bytes_per_second);
    return GcsStorageProvider::Open(std::move(gcs));
  }
  if (!options.location.starts_with('/')) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", options.location,
        "' is not a base: give an absolute path of a folder, or gs://BUCKET[/PREFIX]"));
  }
  if (struct stat found{}; options.must_exist && stat(options.location.c_str(), &found) != 0) {
    return ErrnoStatus(errno, "base folder " + options.location);
  }
  LocalStorageOptions local;
  local.folder = options.location;
  local.read_bytes_per_second = options.read_bytes_per_second;
  local.write_bytes_per_second = options.write_bytes_per_second;
  return LocalStorageProvider::Open(std::move(local));
}

}  // namespace peerchunk
