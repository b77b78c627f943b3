#include "peer/peer_version.h"

#include <absl/strings/str_format.h>

namespace peerchunk {
namespace {

constexpr std::string_view kPrefix = "peer-";

}  // namespace

std::string PeerVersion(uint64_t version, uint64_t size, std::optional<uint32_t> crc32c) {
  std::string text = absl::StrFormat("peer-%d-%d", version, size);
  if (crc32c) absl::StrAppendFormat(&text, "-%08x", *crc32c);
  return text;
}

absl::StatusOr<ReadOptions> ResolveVersion(const SourceSet& sources, FileKind kind,
                                           const ReadOptions& options) {
  if (!options.version) return options;
  if (!options.version->starts_with(kPrefix)) {
    ReadOptions from_base = options;
    from_base.sources = SourcePolicy::kBaseOnly;
    return from_base;
  }
  const std::optional<DeclaredFile> declared = sources.knowledge->Declared(kind);
  if (!declared ||
      PeerVersion(declared->version, declared->size, declared->crc32c) != *options.version) {
    return absl::AbortedError(absl::StrCat("read ", sources.FileId(kind).ObjectPath(),
                                           ": replaced since it was looked at"));
  }
  return ReadOptions{.deadline = options.deadline,
                     .cancellation = options.cancellation,
                     .priority = options.priority,
                     .sources = options.sources,
                     .relays_left = options.relays_left,
                     .relayed = options.relayed,
                     .version = std::nullopt,
                     .least_size = options.least_size};
}

}  // namespace peerchunk
