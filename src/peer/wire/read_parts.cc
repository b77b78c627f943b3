#include "peer/wire/read_parts.h"

#include <string>
#include <utility>

#include "peer/wire/wire_cursor.h"
#include "peerchunk/peer/chunk_service_client.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {
namespace {

// A message has at most a few parts of each read under way.
constexpr size_t kMostParts = 16 * kMostReadsUnderWay;
// What a part takes beside its bytes.
constexpr size_t kPartBytes = 256;

size_t BytesOf(const ReadPart& part) {
  return kPartBytes + part.error.message().size() + part.message.size();
}

MessageBytes CopyOf(const MessageBytes& message) {
  const auto copy = std::make_shared<std::string>();
  copy->reserve(message.size());
  for (const std::string_view piece : message.pieces) copy->append(piece);
  return {.pieces = {*copy}, .owner = copy};
}

// A message's memory, counted for as long as it is kept.
class CountedOwner {
 public:
  CountedOwner(std::shared_ptr<const void> owner, size_t bytes,
               std::shared_ptr<std::atomic<size_t>> total)
      : owner_(std::move(owner)), bytes_(bytes), total_(std::move(total)) {
    *total_ += bytes_;
  }
  ~CountedOwner() { *total_ -= bytes_; }
  CountedOwner(const CountedOwner&) = delete;
  CountedOwner& operator=(const CountedOwner&) = delete;

 private:
  const std::shared_ptr<const void> owner_;
  const size_t bytes_;
  const std::shared_ptr<std::atomic<size_t>> total_;
};

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
    if (parts.size() == kMostParts) return Malformed("too many parts");
    PEERCHUNK_ASSIGN_OR_RETURN(ReadPart& part = parts.emplace_back(),
                               ReadOnePart(in, in.left() - length));
    if (!part.message.pieces.empty()) part.message.owner = bytes.owner;
  }
  return parts;
}

absl::StatusOr<std::vector<ReadPart>> ReadPartDecoder::Decode(MessageBytes bytes) {
  const size_t size = bytes.size();
  const bool full = *kept_bytes_ + size > kMostKeptBytes;
  if (!full) {
    bytes.owner = std::make_shared<CountedOwner>(std::move(bytes.owner), size, kept_bytes_);
  }
  auto parts = DecodeReadParts(bytes);
  if (!full || !parts.ok()) return parts;
  for (ReadPart& part : *parts) {
    const size_t part_bytes = part.message.size();
    if (part_bytes > 0 && part_bytes < size / 4) part.message = CopyOf(part.message);
  }
  return parts;
}

absl::Status WaitingParts::Add(ReadPart part) {
  if (has_error_) return absl::OkStatus();
  const size_t bytes = BytesOf(part);
  if (bytes_ + bytes > kMostBytes) {
    return absl::DataLossError("the peer sent more than was asked for");
  }
  bytes_ += bytes;
  has_error_ = !part.error.ok();
  parts_.push_back(std::move(part));
  return absl::OkStatus();
}

ReadPart WaitingParts::Take() {
  ReadPart part = std::move(parts_.front());
  parts_.pop_front();
  bytes_ -= BytesOf(part);
  return part;
}

}  // namespace peerchunk
