#include "peer/wire/in_order_placement.h"

#include <optional>
#include <string_view>
#include <vector>

#include "peer/wire/wire_cursor.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {
namespace {

using Response = v1::GetBuildFileResponse;
using WireExtent = v1::Extent;

// The last field of a message.
struct ExtentAhead {
  uint64_t offset = 0;
  uint64_t zero_length = 0;
  uint64_t data_length = 0;  // The message's last bytes.
};

// Reads the fields of an extent that ends with the message, of which `bytes_behind_head` are not in
// `in`. Stricter than MessageDecoder: what it takes, that takes in the same way, or not at all.
std::optional<ExtentAhead> ReadExtentAhead(WireCursor& in, uint64_t bytes_behind_head) {
  ExtentAhead extent;
  uint64_t last_field = 0;
  while (in.left() > 0) {
    Tag tag;
    if (!ReadTag(in, tag) || tag.field <= last_field) return std::nullopt;
    last_field = tag.field;
    uint32_t crc32c = 0;
    if (tag.field == WireExtent::kOffsetFieldNumber && tag.type == kVarint) {
      if (!in.ReadVarint(extent.offset)) return std::nullopt;
    } else if (tag.field == WireExtent::kZeroLengthFieldNumber && tag.type == kVarint) {
      if (!in.ReadVarint(extent.zero_length)) return std::nullopt;
    } else if (tag.field == WireExtent::kCrc32CFieldNumber && tag.type == kFixed32) {
      if (!in.ReadFixed32(crc32c)) return std::nullopt;
    } else if (tag.field == WireExtent::kDataFieldNumber && tag.type == kBytes) {
      if (!in.ReadVarint(extent.data_length)) return std::nullopt;
      if (extent.data_length != in.left() + bytes_behind_head) return std::nullopt;
      return extent;
    } else {
      return std::nullopt;
    }
  }
  // All of it was fields; none of it may be missing.
  return bytes_behind_head == 0 ? std::make_optional(extent) : std::nullopt;
}

}  // namespace

absl::Span<char> InOrderPlacement::Place(std::string_view head, size_t message_bytes) {
  const uint64_t behind_head = message_bytes - head.size();
  const std::vector<std::string_view> pieces{head};
  WireCursor in(pieces);
  std::optional<ExtentAhead> extent;
  uint64_t last_field = 0;
  while (in.left() > 0) {
    Tag tag;
    uint64_t length = 0;
    if (!ReadTag(in, tag) || tag.field <= last_field) break;
    last_field = tag.field;
    if (tag.field != Response::kExtentFieldNumber) {
      if (!in.SkipField(tag.type)) break;
      if (in.left() == 0 && behind_head == 0) return {};  // A message without an extent.
      continue;
    }
    if (tag.type != kBytes || !in.ReadVarint(length) || length != in.left() + behind_head) break;
    extent = ReadExtentAhead(in, behind_head);
    break;
  }
  const uint64_t length = extent ? extent->zero_length + extent->data_length : 0;
  const bool in_order = length > 0 && extent->offset == next_ && length <= memory_.size() &&
                        (extent->zero_length == 0 || extent->data_length == 0);
  if (!in_order) {
    memory_ = {};
    return {};
  }
  const absl::Span<char> place = memory_.first(extent->data_length);
  next_ += length;
  memory_.remove_prefix(length);
  return place;
}

}  // namespace peerchunk
