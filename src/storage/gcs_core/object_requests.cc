#include "storage/gcs_core/object_requests.h"

#include <algorithm>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/status.h"
#include "storage/gcs_core/retry.h"

namespace peerchunk {
namespace {

constexpr int32_t kPageSize = 1000;

absl::StatusOr<GcsListPage> ListPage(GcsContext& context, const CallLimits& limits,
                                     const GcsListRequest& request) {
  return CallWithRetry(context, limits, RetryPolicy::ForReads(context.tuning),
                       [&](GcsCall& call) { return call.ListObjects(request); });
}

}  // namespace

absl::StatusOr<GcsObject> GetObject(GcsContext& context, const CallLimits& limits,
                                    const std::string& object) {
  return CallWithRetry(context, limits, RetryPolicy::ForReads(context.tuning),
                       [&](GcsCall& call) { return call.GetObject(object); });
}

ObjectStat ToStat(const GcsObject& object) {
  ObjectStat stat;
  stat.size = object.size;
  stat.crc32c = object.crc32c;
  stat.version = absl::StrCat(object.generation);
  stat.metadata = object.metadata;
  return stat;
}

absl::StatusOr<bool> DeleteObject(GcsContext& context, const CallLimits& limits,
                                  const std::string& object, int64_t generation) {
  int retries = 0;
  const absl::Status status = CallWithRetry(
      context, limits, RetryPolicy::ForReads(context.tuning),
      [&](GcsCall& call) { return call.DeleteObject(object, generation); }, &retries);
  // After an attempt whose answer was lost, "not found" is its success.
  if (absl::IsNotFound(status)) return retries > 0;
  PEERCHUNK_RETURN_IF_ERROR(status);
  return true;
}

absl::StatusOr<uint64_t> DeleteObjects(GcsContext& context, const CallLimits& limits,
                                       const std::string& prefix) {
  uint64_t deleted = 0;
  GcsListRequest request{.prefix = prefix, .page_size = kPageSize};
  for (;;) {
    PEERCHUNK_ASSIGN_OR_RETURN(GcsListPage page, ListPage(context, limits, request));
    // A build's metadata.json says that the rest is there: it goes first. A build fits in a page.
    std::stable_partition(page.objects.begin(), page.objects.end(), [](const GcsObject& object) {
      return object.name.ends_with(FileName(FileKind::kMetadata));
    });
    for (const GcsObject& object : page.objects) {
      if (!absl::StartsWith(object.name, prefix)) {
        return absl::InternalError(
            absl::StrCat("the list of '", prefix, "' holds '", object.name, "'"));
      }
      PEERCHUNK_ASSIGN_OR_RETURN(const bool went,
                                 DeleteObject(context, limits, object.name, object.generation));
      if (went) ++deleted;
    }
    if (page.next_page_token.empty()) return deleted;
    if (page.next_page_token == request.page_token) {
      return absl::InternalError(absl::StrCat("the list of '", prefix, "' repeats a page"));
    }
    request.page_token = page.next_page_token;
  }
}

void CancelSessions(GcsContext& context, const std::vector<std::string>& upload_ids,
                    std::optional<size_t> avoid) {
  const CallLimits limits{context.clock.Now() + context.tuning.clean_up, {}};
  for (const std::string& id : upload_ids) {
    if (id.empty()) continue;
    if (!limits.Check(context.clock).ok()) return;
    Attempt attempt(context, limits, GcsContext::NewToken(), avoid);
    attempt.Expect(context.clock.Now(), context.tuning.clean_up, context.metrics.answer_stalls);
    attempt.Settle(attempt.call().CancelResumableWrite(id)).IgnoreError();
  }
}

absl::Status CheckBucket(GcsContext& context, const CallLimits& limits) {
  const GcsListRequest request{.prefix = context.prefix, .page_size = 1};
  return ListPage(context, limits, request).status();
}

}  // namespace peerchunk
