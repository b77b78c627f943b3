#include "peer/wire/read_parts.h"

#include <string>
#include <utility>

#include "peer/wire/wire.h"
#include "peer/wire/wire_cursor.h"
#include "peerchunk/peer/chunk_service_client.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {
namespace {

absl::Status ErrorFromWire(const v1::ReadError& wire) {
  absl::Status error = StatusFromCode(wire.code(), wire.message());
  if (error.ok()) return Malformed("an error that is none");
  if (!absl::IsResourceExhausted(error)) return error;
  return WithRetryAfter(std::move(error), absl::Milliseconds(wire.retry_after_ms()));
}

// Parses the part that ends when `in.left()` has fallen to `end_left`.
absl::StatusOr<ReadPart> ReadOnePart(WireCursor& in, uint64_t end_left) {
  ReadPart part;
  bool has_message = false;
  while (in.left() > end_left) {
    Tag tag;
    if (!ReadTag(in, tag)) return Malformed("part");
    uint64_t length = 0;
    bool ok = true;
    const auto fits = [&] {
      return in.ReadVarint(length) && in.left() >= end_left && length <= in.left() - end_left;
    };
    if (tag.field == v1::FileReadPart::kIdFieldNumber && tag.type == kVarint) {
      ok = in.ReadVarint(part.id);
    } else if (tag.field == v1::FileReadPart::kErrorFieldNumber && tag.type == kBytes) {
      std::string bytes;
      v1::ReadError wire;
      ok = fits() && in.TakeString(length, bytes) && wire.ParseFromString(bytes);
      if (ok) part.error = ErrorFromWire(wire);
    } else if (tag.field == v1::FileReadPart::kMessageFieldNumber && tag.type == kBytes) {
      if (has_message) return Malformed("a part with two messages");
      has_message = true;
      ok = fits() && in.Take(length, part.message.pieces);
    } else {
      ok = in.SkipField(tag.type);
    }
    if (!ok) return Malformed("part");
  }
  if (in.left() != end_left) return Malformed("a part that overruns its length");
  if (part.error.ok() && !has_message) return Malformed("an empty part");
  return part;
}

}  // namespace

absl::StatusOr<std::vector<ReadPart>> DecodeReadParts(const MessageBytes& bytes) {
  WireCursor in(bytes.pieces);
  std::vector<ReadPart> parts;
  while (in.left() > 0) {
    Tag tag;
    if (!ReadTag(in, tag)) return Malformed("tag");
    if (tag.field != v1::ReadBuildFileResponse::kPartsFieldNumber || tag.type != kBytes) {
      if (!in.SkipField(tag.type)) return Malformed("field");
      continue;
    }
    uint64_t length = 0;
    if (!in.ReadVarint(length) || length > in.left()) return Malformed("part");
    PEERCHUNK_ASSIGN_OR_RETURN(ReadPart& part = parts.emplace_back(),
                               ReadOnePart(in, in.left() - length));
    part.message.owner = bytes.owner;
  }
  return parts;
}

}  // namespace peerchunk
