#include "peer/wire/message_decoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "peer/wire/wire.h"
#include "peer/wire/wire_cursor.h"
#include "peerchunk/base/status.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {
namespace {

using Response = v1::GetBuildFileResponse;
using WireExtent = v1::Extent;

// Parses the extent that ends when `in.left()` has fallen to `end_left`.
absl::Status ReadExtent(WireCursor& in, uint64_t end_left, PeerExtent& extent,
                        std::vector<std::string_view>& pieces) {
  uint64_t zero_length = 0;
  uint64_t data_length = 0;
  while (in.left() > end_left) {
    Tag tag;
    if (!ReadTag(in, tag)) return Malformed("extent");
    bool ok = true;
    if (tag.field == WireExtent::kOffsetFieldNumber && tag.type == kVarint) {
      ok = in.ReadVarint(extent.offset);
    } else if (tag.field == WireExtent::kZeroLengthFieldNumber && tag.type == kVarint) {
      ok = in.ReadVarint(zero_length);
    } else if (tag.field == WireExtent::kCrc32CFieldNumber && tag.type == kFixed32) {
      ok = in.ReadFixed32(extent.crc32c);
    } else if (tag.field == WireExtent::kDataFieldNumber && tag.type == kBytes) {
      if (!pieces.empty()) return Malformed("an extent with data twice");
      ok = in.ReadVarint(data_length) && data_length <= in.left() - std::min(end_left, in.left());
      if (ok && data_length > MessageDecoder::kMaxExtentDataBytes) {
        return Malformed("an extent of more than 1 MiB");
      }
      ok = ok && in.Take(data_length, pieces);
    } else {
      ok = in.SkipField(tag.type);
    }
    if (!ok) return Malformed("extent");
  }
  if (in.left() != end_left) return Malformed("an extent that overruns its length");
  if (zero_length != 0 && data_length != 0) return Malformed("an extent of zeros with data");
  extent.zero = zero_length != 0;
  extent.length = extent.zero ? zero_length : data_length;
  if (extent.length == 0) return Malformed("an empty extent");
  if (extent.offset + extent.length < extent.offset) return Malformed("an extent that overflows");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MessageDecoder> MessageDecoder::Decode(MessageBytes bytes) {
  MessageDecoder decoder;
  decoder.bytes_ = std::move(bytes);
  WireCursor in(decoder.bytes_.pieces);
  PeerMessage& message = decoder.message_;
  std::string text;
  while (in.left() > 0) {
    Tag tag;
    if (!ReadTag(in, tag)) return Malformed("tag");
    uint64_t number = 0;
    bool ok = true;
    if (tag.type == kBytes &&
        (tag.field == Response::kHeadFieldNumber || tag.field == Response::kStatusFieldNumber)) {
      ok = in.ReadVarint(number) && in.TakeString(number, text);
      if (ok && tag.field == Response::kHeadFieldNumber) {
        PEERCHUNK_ASSIGN_OR_RETURN(message.head, DecodeHead(text));
      } else if (ok) {
        PEERCHUNK_ASSIGN_OR_RETURN(message.status, DecodeStatus(text));
      }
    } else if (tag.type == kVarint && tag.field == Response::kLastFieldNumber) {
      ok = in.ReadVarint(number);
      message.last = number != 0;
    } else if (tag.type == kVarint && tag.field == Response::kNextOffsetFieldNumber) {
      ok = in.ReadVarint(message.next_offset);
    } else if (tag.type == kVarint && tag.field == Response::kEndFieldNumber) {
      ok = in.ReadVarint(number);
      message.stopped_short = number == v1::NOT_AVAILABLE;
    } else if (tag.type == kBytes && tag.field == Response::kExtentFieldNumber) {
      if (message.extent) return Malformed("two extents");
      ok = in.ReadVarint(number) && number <= in.left();
      if (ok) {
        message.extent.emplace();
        PEERCHUNK_RETURN_IF_ERROR(
            ReadExtent(in, in.left() - number, *message.extent, decoder.pieces_));
      }
    } else {
      ok = in.SkipField(tag.type);
    }
    if (!ok) return Malformed("field");
  }
  // The vector's heap block moves with the decoder, so the span stays right.
  if (message.extent) message.extent->pieces = decoder.pieces_;
  return decoder;
}

}  // namespace peerchunk
