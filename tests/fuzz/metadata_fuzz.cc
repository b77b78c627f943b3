// Any bytes that a peer, a base or a pause gives for metadata.json are judged without harm, and a
// working set that came out of them can be written and read again.
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "template/snapshot_check.h"
#include "template/working_set.h"

namespace peerchunk {
namespace {

constexpr uint64_t kDeviceBytes = kGiB;

void Require(bool condition) {
  if (!condition) std::abort();
}

void Judge(std::string_view text) {
  const BuildId id({0xaa, 1});
  const bool full = CheckMetadata(text, id, /*has_memory=*/true).ok();
  const bool filesystem_only = CheckMetadata(text, id, /*has_memory=*/false).ok();
  Require(!full || !filesystem_only);

  const auto set = DecodeWorkingSet(text, kDeviceBytes);
  if (set.ok() && set->has_value()) {
    Require((*set)->blocks.size() <= kMaxWorkingSetBlocks);
    const auto again = DecodeWorkingSet(EncodeWorkingSet(**set), kDeviceBytes);
    Require(again.ok() && *again == *set);
  }
  const WorkingSet added{.block_bytes = kPageBytes, .blocks = {3, 1, 2}};
  const auto with = WithWorkingSet(text, added);
  if (!with.ok()) return;
  const auto found = DecodeWorkingSet(*with, kDeviceBytes);
  Require(found.ok() && *found == std::optional(added));
}

}  // namespace
}  // namespace peerchunk

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  peerchunk::Judge({reinterpret_cast<const char*>(data), size});
  return 0;
}
