#include <algorithm>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/status.h"
#include "peerchunk/storage/gcs_storage.h"

namespace peerchunk {
namespace {

// Cloud Storage's rules for bucket names, as far as they keep one apart from a path.
bool IsBucketName(std::string_view name) {
  if (name.size() < 3 || name.size() > 222) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

}  // namespace

absl::StatusOr<GcsUrl> ParseGcsUrl(std::string_view url) {
  constexpr std::string_view kScheme = "gs://";
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", AbslView(url), "': ", AbslView(why), "; expected gs://BUCKET[/PREFIX]"));
  };
  if (url.substr(0, kScheme.size()) != kScheme) return refuse("does not begin with gs://");
  const std::string_view rest = url.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  GcsUrl parsed{std::string(rest.substr(0, slash)), ""};
  if (!IsBucketName(parsed.bucket)) return refuse("no bucket name");
  std::string_view prefix = rest.substr(std::min(slash + 1, rest.size()));
  if (!prefix.empty() && prefix.back() == '/') prefix.remove_suffix(1);
  if (prefix.empty()) {
    if (rest.size() > slash + 1) return refuse("an empty prefix");
    return parsed;
  }
  PEERCHUNK_RETURN_IF_ERROR(Annotate(CheckObjectPath(prefix), std::string(url)));
  parsed.prefix = std::string(prefix);
  return parsed;
}

}  // namespace peerchunk
