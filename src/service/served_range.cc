#include "service/served_range.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "peerchunk/base/status.h"
#include "service/wire.h"

namespace peerchunk {

ReadOptions ServedRange::Options() const {
  ReadOptions options;
  options.relays_left = relays_left;
  options.relayed = true;
  options.priority = prefetch ? Priority::kPrefetch : Priority::kDemand;
  return options;
}

absl::StatusOr<ServedRange> ResolveRange(TemplateCache& templates,
                                         const v1::GetBuildFileRequest& request) {
  ServedRange result;
  PEERCHUNK_ASSIGN_OR_RETURN(result.id, FileFromWire(request.build_id(), request.file()));
  PEERCHUNK_ASSIGN_OR_RETURN(ServedFile served,
                             templates.Resolve(result.id, request.even_if_durable(), true));
  result.head = served.head;
  if (result.head.availability != Availability::kAvailable) return result;

  const std::optional<uint64_t> length =
      request.has_length() ? std::optional<uint64_t>(request.length()) : std::nullopt;
  const auto range = ByteRange::Clip(request.offset(), length, result.head.total_size);
  if (!range) {
    return absl::OutOfRangeError(absl::StrCat("offset ", request.offset(), " of ",
                                              result.id.ObjectPath(), " is past its ",
                                              result.head.total_size, " bytes"));
  }
  result.range = *range;
  result.relays_left = std::min<uint32_t>(request.relays_left(), 1);
  result.prefetch = request.prefetch();
  result.file = std::move(served.file);
  return result;
}

BuildStatus StatusNow(TemplateCache& templates, const ServedRange& served) {
  const auto now = templates.Resolve(served.id, true, false);
  return now.ok() ? now->head.status : served.head.status;
}

}  // namespace peerchunk
