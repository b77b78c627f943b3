#include <algorithm>
#include <charconv>
#include <string>

#include <absl/strings/cord.h>

#include "peerchunk/base/status.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk {
namespace {

constexpr char kPayloadUrl[] = "peerchunk/retry-after-ms";
constexpr absl::Duration kLongestHint = absl::Seconds(5);

}  // namespace

std::optional<absl::Duration> RetryAfter(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload) return std::nullopt;
  const std::string text(*payload);
  uint64_t milliseconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), milliseconds);
  if (end != text.data() + text.size() || text.empty()) return std::nullopt;
  if (error == std::errc::result_out_of_range) return kLongestHint;
  if (error != std::errc()) return std::nullopt;
  const auto longest = static_cast<uint64_t>(absl::ToInt64Milliseconds(kLongestHint));
  return absl::Milliseconds(static_cast<int64_t>(std::min(milliseconds, longest)));
}

absl::Status WithRetryAfter(absl::Status status, absl::Duration hint) {
  const int64_t milliseconds =
      absl::ToInt64Milliseconds(std::clamp(hint, absl::ZeroDuration(), kLongestHint));
  status.SetPayload(kPayloadUrl, absl::Cord(absl::StrCat(milliseconds)));
  return status;
}

}  // namespace peerchunk
