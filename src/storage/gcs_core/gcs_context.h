#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/storage/gcs_storage.h"
#include "storage/gcs_core/channel_pool.h"
#include "storage/gcs_core/gcs_metrics.h"
#include "storage/gcs_core/session_journal.h"
#include "storage/gcs_core/watchdog.h"

namespace peerchunk {

class UploadLanes;

// What all operations of one provider share. Owned by the provider; every member is thread-safe or
// fixed.
struct GcsContext {
  std::string bucket;
  std::string prefix;  // Empty, or ends in '/'.
  GcsTuning tuning;
  Clock& clock;
  std::function<uint64_t()> random;
  std::unique_ptr<Metrics> own_metrics;  // Null when the options name some.
  GcsMetrics metrics;
  std::shared_ptr<UploadLanes> lanes;
  std::unique_ptr<SessionJournal> journal;
  ChannelPool channels;
  Watchdog watchdog;  // Ends before the channels of the calls that it cancels.

  // "gs://BUCKET/NAME", for messages.
  std::string Url(std::string_view object) const;
  // An idempotency token for a new request.
  static std::string NewToken() { return BuildId::Random().ToString(); }
};

}  // namespace peerchunk
