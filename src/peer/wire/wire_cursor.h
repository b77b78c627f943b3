#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "peerchunk/base/status.h"

// The protobuf wire format, read where the transport left it (protobuf.dev/programming-guides/
// encoding). Total: any bytes give a value or false.
namespace peerchunk {

inline constexpr uint32_t kVarint = 0;
inline constexpr uint32_t kFixed64 = 1;
inline constexpr uint32_t kBytes = 2;
inline constexpr uint32_t kFixed32 = 5;

inline absl::Status Malformed(const char* what) {
  return absl::DataLossError(absl::StrCat("malformed message from the peer: ", what));
}

// A cursor over the pieces of one message, limited to a sub-message by `left`.
class WireCursor {
 public:
  // `pieces` outlives the cursor.
  explicit WireCursor(const std::vector<std::string_view>& pieces) : pieces_(pieces) {
    for (const std::string_view piece : pieces_) left_ += piece.size();
    SkipEmpty();
  }

  uint64_t left() const { return left_; }

  bool ReadByte(uint8_t& byte) {
    if (left_ == 0) return false;
    byte = static_cast<uint8_t>(pieces_[index_][position_]);
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

  // Takes `length` bytes where they lie.
  bool Take(uint64_t length, std::vector<std::string_view>& taken) {
    if (length > left_) return false;
    while (length > 0) {
      const std::string_view piece = pieces_[index_];
      const size_t take = std::min<uint64_t>(length, piece.size() - position_);
      taken.push_back(piece.substr(position_, take));
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
      const size_t take = std::min<uint64_t>(length, pieces_[index_].size() - position_);
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
  // `n` stays within the current piece.
  void Advance(size_t n) {
    position_ += n;
    left_ -= n;
    SkipEmpty();
  }
  void SkipEmpty() {
    while (index_ < pieces_.size() && position_ == pieces_[index_].size()) {
      ++index_;
      position_ = 0;
    }
  }

  const std::vector<std::string_view>& pieces_;
  size_t index_ = 0;
  size_t position_ = 0;
  uint64_t left_ = 0;
};

struct Tag {
  uint64_t field = 0;
  uint32_t type = 0;
};

inline bool ReadTag(WireCursor& in, Tag& tag) {
  uint64_t value = 0;
  if (!in.ReadVarint(value)) return false;
  tag = {value >> 3, static_cast<uint32_t>(value & 7)};
  return tag.field != 0;
}

}  // namespace peerchunk
