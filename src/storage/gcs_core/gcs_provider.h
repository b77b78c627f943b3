#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/storage/gcs_storage.h"
#include "peerchunk/storage/storage.h"
#include "storage/gcs_core/gcs_context.h"

namespace peerchunk {

// Puts together what the operations share. Nothing is sent. InvalidArgument for options that make
// no sense.
absl::StatusOr<std::unique_ptr<GcsContext>> MakeGcsContext(
    const GcsStorageOptions& options, std::vector<std::unique_ptr<GcsStub>> stubs);

// The provider over that context.
std::unique_ptr<StorageProvider> MakeGcsProvider(std::unique_ptr<GcsContext> context);

// Asks the service whether the bucket can be used. OK also when that cannot be found out now, for
// which
// `*reachable` is false.
absl::Status CheckGcsBucket(GcsContext& context, absl::Duration budget, bool* reachable);

}  // namespace peerchunk
