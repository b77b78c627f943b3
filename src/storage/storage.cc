#include "peerchunk/storage/storage.h"

#include <algorithm>
#include <cstring>

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include "base/bulk_copy.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {

absl::Status StringSink::Write(std::string_view data) {
  if (data.size() > limit_bytes_ - bytes_.size()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("object is larger than the limit of ", limit_bytes_, " bytes"));
  }
  bytes_.append(data);
  return absl::OkStatus();
}

void Extent::CopyTo(char* out) const {
  // What is as long as this is part of a bulk copy, which fills more memory than a cache holds.
  constexpr uint64_t kLeastPastCaches = 256 * kKiB;
  if (zero) {
    std::memset(out, 0, length);
    return;
  }
  for (const std::string_view piece : pieces) {
    if (piece.empty()) continue;
    if (length >= kLeastPastCaches) {
      CopyPastCaches(out, piece.data(), piece.size());
    } else {
      std::memcpy(out, piece.data(), piece.size());
    }
    out += piece.size();
  }
}

absl::Status CheckObjectPath(std::string_view path) {
  constexpr size_t kMaxBytes = 1024;  // Cloud Storage's limit for a name.
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(
        "object path '", absl::CHexEscape(AbslView(path.substr(0, 128))), "': ", AbslView(why)));
  };
  if (path.empty()) return refuse("empty");
  if (path.size() > kMaxBytes) return refuse("longer than 1024 bytes");
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (std::any_of(path.begin(), path.end(), is_control)) return refuse("holds a control character");
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view segment = path.substr(start, end - start);
    if (segment.empty()) return refuse("holds an empty segment");
    if (segment == "." || segment == "..") return refuse("holds '.' or '..'");
    start = end + 1;
  }
  return absl::OkStatus();
}

}  // namespace peerchunk
