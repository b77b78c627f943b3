#include "peer/grpc/message_decoder.h"

#include <algorithm>
#include <string>

#include "peer/grpc/wire.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

using Response = v1::GetBuildFileResponse;
using WireExtent = v1::Extent;

constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kFixed32 = 5;

absl::Status Malformed(const char* what) {
  return absl::DataLossError(absl::StrCat("malformed message from the peer: ", what));
}

// A cursor over the slices of one message, limited to a sub-message by `left`.
class SliceCursor {
 public:
  explicit SliceCursor(const std::vector<grpc::Slice>& slices) : slices_(slices) {
    for (const grpc::Slice& slice : slices_) left_ += slice.size();
    SkipEmpty();
  }

  uint64_t left() const { return left_; }

  bool ReadByte(uint8_t& byte) {
    if (left_ == 0) return false;
    byte = slices_[index_].begin()[position_];
    Advance(1);
    return true;
  }

  bool ReadVarint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      uint8_t byte = 0;
      if (!ReadByte(byte)) return false;
      // The tenth byte holds bit 63 alone.
      if (shift == 63 && byte > 1) return false;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return true;
    }
    return false;
  }

  bool ReadFixed32(uint32_t& value) {
    if (left_ < 4) return false;
    value = 0;
    for (int i = 0; i < 4; ++i) {
      uint8_t byte = 0;
      ReadByte(byte);
      value |= static_cast<uint32_t>(byte) << (8 * i);
    }
    return true;
  }

  // Takes `length` bytes as views into the slices.
  bool Take(uint64_t length, std::vector<std::string_view>& pieces) {
    if (length > left_) return false;
    while (length > 0) {
      const grpc::Slice& slice = slices_[index_];
      const size_t take = std::min<uint64_t>(length, slice.size() - position_);
      pieces.emplace_back(reinterpret_cast<const char*>(slice.begin()) + position_, take);
      length -= take;
      Advance(take);
    }
    return true;
  }

  bool TakeString(uint64_t length, std::string& out) {
    std::vector<std::string_view> pieces;
    if (!Take(length, pieces)) return false;
    out.clear();
    for (std::string_view piece : pieces) out.append(piece);
    return true;
  }

  bool Skip(uint64_t length) {
    if (length > left_) return false;
    while (length > 0) {
      const size_t take = std::min<uint64_t>(length, slices_[index_].size() - position_);
      length -= take;
      Advance(take);
    }
    return true;
  }

  bool SkipField(uint32_t wire_type) {
    uint64_t number = 0;
    switch (wire_type) {
      case kVarint:
        return ReadVarint(number);
      case kFixed64:
        return Skip(8);
      case kBytes:
        return ReadVarint(number) && Skip(number);
      case kFixed32:
        return Skip(4);
      default:
        return false;  // Groups: proto3 has none.
    }
  }

 private:
  // `n` stays within the current slice.
  void Advance(size_t n) {
    position_ += n;
    left_ -= n;
    SkipEmpty();
  }
  void SkipEmpty() {
    while (index_ < slices_.size() && position_ == slices_[index_].size()) {
      ++index_;
      position_ = 0;
    }
  }

  const std::vector<grpc::Slice>& slices_;
  size_t index_ = 0;
  size_t position_ = 0;
  uint64_t left_ = 0;
};

struct Tag {
  uint64_t field = 0;
  uint32_t type = 0;
};

bool ReadTag(SliceCursor& in, Tag& tag) {
  uint64_t value = 0;
  if (!in.ReadVarint(value)) return false;
  tag = {value >> 3, static_cast<uint32_t>(value & 7)};
  return tag.field != 0;
}

// Parses the extent that ends when `in.left()` has fallen to `end_left`.
absl::Status ReadExtent(SliceCursor& in, uint64_t end_left, PeerExtent& extent,
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

absl::StatusOr<MessageDecoder> MessageDecoder::Decode(const grpc::ByteBuffer& buffer) {
  MessageDecoder decoder;
  if (!buffer.Dump(&decoder.slices_).ok()) return Malformed("unreadable buffer");
  SliceCursor in(decoder.slices_);
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
        v1::FileHead wire;
        if (!wire.ParseFromString(text)) return Malformed("head");
        PEERCHUNK_ASSIGN_OR_RETURN(message.head, HeadFromWire(wire));
      } else if (ok) {
        v1::BuildStatus wire;
        if (!wire.ParseFromString(text)) return Malformed("status");
        PEERCHUNK_ASSIGN_OR_RETURN(message.status, StatusFromWire(wire));
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
